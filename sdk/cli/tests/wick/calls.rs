//! `wick infer` on packages.

use std::fs;
use std::io::Write as _;
use std::process::Stdio;

use serde_json::json;
use wick_package::Datatype;
use wick_testing::onnx;

use crate::support::{Sandbox, str, text};

#[test]
fn inputs_are_written_out_or_come_from_files_and_standard_input() {
    let sandbox = Sandbox::new();
    let package = sandbox.package("plus-one");
    fs::write(sandbox.path("x.json"), "[[1, 2, 3, 4]]").unwrap();
    let floats = [1_f32, 2.0, 3.0, 4.0].map(f32::to_le_bytes).concat();
    fs::write(sandbox.path("x.bin"), floats).unwrap();
    fs::write(
        sandbox.path("request.json"),
        r#"{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}"#,
    )
    .unwrap();
    for input in [
        &["-i", "x=[1, 2, 3, 4]"][..],
        &["-i", "x=@x.json"],
        &["-i", "@x.bin"],
        &["--json", "request.json"],
    ] {
        let answer = sandbox.json(&[&["infer", str(&package)], input].concat());
        assert_eq!(answer["outputs"][0]["data"], json!([2.0, 3.0, 4.0, 5.0]), "{input:?}");
    }
    let mut child = sandbox.wick(&["infer", str(&package), "-i", "x=@-", "--output", "raw"]);
    let mut child = child.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&[0; 16]).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.stdout, [1_f32; 4].map(f32::to_le_bytes).concat(), "{}", text(&output));
}

#[test]
fn pictures_are_decoded_into_the_inputs_shape() {
    let sandbox = Sandbox::new();
    let model = onnx::add_scalar(0.0, &[1, 3, 2, 2]);
    let package = sandbox.package_of("picture", &model, "");
    let picture = image::RgbImage::from_pixel(8, 8, image::Rgb([255, 0, 51]));
    picture.save(sandbox.path("red.png")).unwrap();
    let answer = sandbox.json(&["infer", str(&package), "-i", "x=@red.png"]);
    let expected = json!([1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.2, 0.2, 0.2, 0.2]);
    assert_eq!(answer["outputs"][0]["data"], expected);
}

#[test]
fn files_go_in_as_bytes_where_the_model_takes_bytes() {
    let sandbox = Sandbox::new();
    let package = sandbox.package_of("bytes", &onnx::identity(Datatype::Uint8, &[-1]), "");
    fs::write(sandbox.path("file.json"), "[7]").unwrap();
    let answer = sandbox.json(&["infer", str(&package), "-i", "@file.json"]);
    assert_eq!(answer["outputs"][0]["data"], json!([91, 55, 93]));
}

#[test]
fn long_answers_are_summed_up_for_people() {
    let sandbox = Sandbox::new();
    let package = sandbox.package_of("long", &onnx::add_scalar(0.0, &[1, 20]), "");
    let values: Vec<_> =
        (0..20).map(|i| if i == 13 { "9".into() } else { i.to_string() }).collect();
    let input = format!("[{}]", values.join(","));
    let table = text(&sandbox.run(&["infer", str(&package), "-i", &input]));
    assert!(table.contains("[19] 19.000000") && table.contains("top 5 of 20"), "{table}");
}
