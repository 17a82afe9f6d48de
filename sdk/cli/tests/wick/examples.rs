//! The examples as they are packed for people: real models behind real components.

use std::path::PathBuf;

use serde_json::Value;

use crate::support::{Sandbox, str, text};

/// An example's folder, with the files that `cargo xtask setup` puts into it.
fn example(name: &str) -> PathBuf {
    let dir = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples")).join(name);
    let complete = ["handler.wasm", "model.onnx", "det.onnx"].map(|file| dir.join(file).exists());
    assert!(complete.contains(&true), "{name} is not complete: run `cargo xtask setup`");
    dir
}

fn output<'a>(answer: &'a Value, name: &str) -> &'a Value {
    let outputs = answer["outputs"].as_array().unwrap();
    &outputs.iter().find(|output| output["name"] == name).unwrap()["data"]
}

#[test]
fn filetype_knows_what_a_file_is() {
    let (sandbox, dir) = (Sandbox::new(), example("filetype"));
    for (sample, label) in [("thermostat.py", "python"), ("sun.jpg", "jpeg")] {
        let input = format!("bytes=@{}", str(&dir.join("tests/samples").join(sample)));
        let answer = sandbox.json(&["infer", str(&dir), "-i", &input]);
        assert_eq!(output(&answer, "label")[0], label, "{answer}");
    }
}

#[test]
fn ocr_reads_a_picture() {
    let (sandbox, dir) = (Sandbox::new(), example("ocr"));
    let input = format!("picture=@{}", str(&dir.join("tests/pictures/sign.png")));
    let answer = sandbox.json(&["infer", str(&dir), "-i", &input]);
    let lines = output(&answer, "text").as_array().unwrap();
    assert!(lines.contains(&"North Gate Station".into()), "{answer}");
    assert_eq!(lines.len(), 7, "{answer}");
}

#[test]
fn passthrough_classifies_a_picture_without_code() {
    let (sandbox, dir) = (Sandbox::new(), example("passthrough"));
    for (picture, upright) in [("upright.png", true), ("rotated.png", false)] {
        let input = format!("x=@{}", str(&dir.join("../orientation/pictures").join(picture)));
        let answer = sandbox.json(&["infer", str(&dir), "-i", &input]);
        let scores = answer["outputs"][0]["data"].as_array().unwrap();
        let [zero, half_turn] = [0, 1].map(|i| scores[i].as_f64().unwrap());
        assert_eq!(zero > half_turn, upright, "{picture}: {answer}");
    }
}

/// Neither guest knows of wick: one is made with plain wit-bindgen from the official
/// interface, the other with the crate `wasi-nn` for preview 1.
#[test]
fn guests_that_know_nothing_of_wick_classify_pictures() {
    let sandbox = Sandbox::new();
    for name in ["foreign-component", "foreign-module"] {
        let output = sandbox.run(&["run", str(&example(name))]);
        assert_eq!(output.status.code(), Some(0), "{name}: {}", text(&output));
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let labels: Vec<_> = printed.lines().map(|line| &line[..line.find('(').unwrap()]).collect();
        assert_eq!(labels, ["upright.png: 0 ", "rotated.png: 180 "], "{name}: {printed}");
    }
}
