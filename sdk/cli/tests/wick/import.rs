//! `wick import`: what it makes is served as it is, and answers what the model's own package does.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;

use serde_json::{Value, json};
use wick_testing::onnx;

use crate::support::{Sandbox, str, text};

/// An example's folder, with the files that `cargo xtask setup` puts into it.
fn example(name: &str) -> PathBuf {
    let dir = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples")).join(name);
    assert!(dir.join("model.onnx").exists(), "{name} is not complete: run `cargo xtask setup`");
    dir
}

#[test]
fn an_imported_model_answers_as_its_own_package_does() {
    let (sandbox, dir) = (Sandbox::new(), example("passthrough"));
    let made = sandbox.json(&["import", str(&dir.join("model.onnx")), "-o", "ours"]);
    assert_eq!(made["name"], "passthrough");
    assert_eq!(made["next"], json!(["wick run ours", "wick pack ours"]));
    sandbox.json(&["pack", "ours", "-o", "ours.tar"]);
    let server = sandbox.serve(&["ours"]);
    for picture in ["upright.png", "rotated.png"] {
        let input = format!("x=@{}", str(&dir.join("../orientation/pictures").join(picture)));
        let ask = |whom: &str| sandbox.json(&["infer", whom, "-i", &input])["outputs"].clone();
        let original = ask(str(&dir));
        assert_eq!(ask(server.url()), original, "{picture}");
        assert_eq!(ask("ours.tar"), original, "{picture}, packed");
    }
}

#[test]
fn the_signature_is_what_the_runtime_finds_in_the_model() {
    let sandbox = Sandbox::new();
    for name in ["passthrough", "filetype"] {
        let model = example(name).join("model.onnx");
        let made = sandbox.json(&["import", str(&model), "-o", name, "--name", "ours"]);
        // A package without inputs and outputs takes them from its graph.
        let plain = sandbox.package_of(&format!("plain-{name}"), &fs::read(&model).unwrap(), "");
        let told = |package: &str| {
            let server = sandbox.serve(&[package]);
            let model = server.ready["models"][0]["name"].as_str().unwrap();
            let metadata = get(server.url(), &format!("/v2/models/{model}"));
            (metadata["inputs"].clone(), metadata["outputs"].clone())
        };
        let found = told(str(&plain));
        assert!(found.0.as_array().is_some_and(|inputs| !inputs.is_empty()), "{name}: {found:?}");
        assert_eq!(told(name), found, "{name}");
        let signature = &made["signature"];
        assert_eq!((signature["inputs"].clone(), signature["outputs"].clone()), found, "{name}");
    }
}

/// The JSON that a server has at a path.
fn get(url: &str, path: &str) -> Value {
    let addr = url.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect(addr).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap_or_else(|_| panic!("{path}: {answer}"))
}

#[test]
fn weights_beside_a_model_are_packed_with_it() {
    let sandbox = Sandbox::new();
    let weights: Vec<u8> = [1.0_f32, 2.0, 3.0, 4.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    fs::create_dir(sandbox.path("net")).unwrap();
    fs::write(sandbox.path("net/w.bin"), weights).unwrap();
    fs::write(sandbox.path("net/net.onnx"), onnx::external_data("w.bin")).unwrap();
    sandbox.json(&["import", "net", "-o", "ours"]);
    sandbox.json(&["pack", "ours", "-o", "ours.tar"]);
    let answer = sandbox.json(&["infer", "ours.tar", "-i", "[10, 10, 10, 10]"]);
    assert_eq!(answer["outputs"][0]["data"], json!([11.0, 12.0, 13.0, 14.0]));
}

#[test]
fn a_model_with_weights_in_another_file_runs_from_its_directory_and_is_not_packed() {
    let sandbox = Sandbox::new();
    let dir = sandbox.package_of("net", &onnx::external_data("w.bin"), "");
    let refused = |args: &[&str]| {
        let output = sandbox.run(args);
        assert_eq!(output.status.code(), Some(65), "{args:?}: {}", text(&output));
        let told = text(&output);
        assert!(told.contains("`model.onnx` has weights in another file, `w.bin`"), "{told}");
        assert!(told.contains("onnx.save(onnx.load('model.onnx'), 'model.onnx')"), "{told}");
    };
    refused(&["check", "net"]);
    let weights: Vec<u8> = [1.0_f32, 2.0, 3.0, 4.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    fs::write(dir.join("w.bin"), weights).unwrap();
    sandbox.json(&["check", "net", "--load"]);
    let answer = sandbox.json(&["infer", "net", "-i", "[10, 10, 10, 10]"]);
    assert_eq!(answer["outputs"][0]["data"], json!([11.0, 12.0, 13.0, 14.0]));
    refused(&["pack", "net", "-o", "net.tar"]);
    refused(&["pack", "net", "--dry-run"]);
    refused(&["push", "net", "localhost:1/net:1"]);
    refused(&["push", "net", "localhost:1/net:1", "--dry-run"]);
    assert!(!sandbox.path("net.tar").exists());
    fs::write(dir.join("model.onnx"), onnx::external_data("../w.bin")).unwrap();
    let output = sandbox.run(&["check", "net"]);
    assert!(text(&output).contains("outside of the model's folder"), "{}", text(&output));
}

#[test]
fn people_are_told_what_was_made_and_what_to_do_next() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("Plus One.onnx"), onnx::add_scalar(1.0, &[-1, 4])).unwrap();
    let output = sandbox.run(&["import", "Plus One.onnx", "--dry-run"]);
    assert!(text(&output).contains("would import plus-one 0.1.0"), "{}", text(&output));
    assert!(!sandbox.path("plus-one").exists());
    let output = sandbox.run(&["import", "Plus One.onnx"]);
    let told = text(&output);
    for part in [
        "imported plus-one 0.1.0 into plus-one (Plus One.onnx, ",
        "  input  x FP32 [-1, 4]\n",
        "  output y FP32 [-1, 4]\n",
        "next:\n  wick run plus-one\n  wick pack plus-one\n",
    ] {
        assert!(told.contains(part), "no {part:?} in {told}");
    }
    sandbox.json(&["check", "plus-one", "--load"]);
}

#[test]
fn refusals_have_exit_codes_and_help() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("m.onnx"), onnx::sum(&[2])).unwrap();
    fs::write(sandbox.path("m.gguf"), "GGUF\x03").unwrap();
    fs::create_dir(sandbox.path("full")).unwrap();
    fs::write(sandbox.path("full/mine"), "").unwrap();
    let zeros = "0".repeat(64);
    let cases: [(&[&str], i32, &str); 9] = [
        (&["nothing.onnx"], 66, "not-found"),
        (&["ftp://h/m"], 64, "bad-source"),
        (&["models:/m/1"], 64, "bad-source"),
        (&["m.gguf"], 65, "other-format"),
        (&["m.onnx", "-o", "full"], 73, "exists"),
        (&["m.onnx", "--sha256", &zeros], 65, "wrong-digest"),
        (&["m.onnx", "--sha256", "abc"], 64, "usage"),
        (&["m.onnx", "--max-size", "10B"], 65, "source-too-large"),
        (&["http://127.0.0.1:1/m.onnx"], 69, "unreachable"),
    ];
    for (args, exit, code) in cases {
        let output = sandbox.run(&[&["import"], args, &["--output", "json"]].concat());
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(exit), "{args:?}: {json}");
        assert_eq!(json["code"], code, "{args:?}: {json}");
    }
    let help = text(&sandbox.run(&["import", "m.gguf"]));
    assert!(help.contains("GGUF") && help.contains("help: "), "{help}");
}
