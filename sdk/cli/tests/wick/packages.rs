//! `wick pack`, `inspect` and `check`.

use crate::support::{Sandbox, str, text};

#[test]
fn a_packed_tar_is_served_like_its_folder() {
    let sandbox = Sandbox::new();
    let package = sandbox.package("plus-one");
    let packed = sandbox.json(&["pack", str(&package), "-o", "image.tar"]);
    assert!(packed["digest"].as_str().unwrap().starts_with("sha256:"), "{packed}");
    let again = sandbox.json(&["pack", str(&package), "-o", "again.tar"]);
    assert_eq!(packed["digest"], again["digest"], "packing is reproducible");

    sandbox.json(&["check", "image.tar", "--verify"]);
    let server = sandbox.serve(&["image.tar"]);
    let answer = sandbox.json(&["infer", server.url(), "-i", "[1, 2, 3, 4]"]);
    assert_eq!(answer["outputs"][0]["data"], serde_json::json!([2.0, 3.0, 4.0, 5.0]));
}

#[test]
fn a_dry_run_writes_nothing() {
    let sandbox = Sandbox::new();
    let package = sandbox.package("plus-one");
    let plan = sandbox.json(&["pack", str(&package), "-o", "image.tar", "--dry-run"]);
    assert_eq!(plan["reference"], "docker.io/library/plus-one:1.2.3");
    assert!(!sandbox.path("image.tar").exists());
}

#[test]
fn inspecting_shows_graphs_files_and_digests() {
    let sandbox = Sandbox::new();
    let package = sandbox.package("plus-one");
    let json = sandbox.json(&["inspect", str(&package)]);
    assert_eq!(json["name"], "plus-one");
    assert_eq!(json["version"], "1.2.3");
    assert_eq!(json["graphs"][0]["devices"], serde_json::json!(["cpu"]));
    let file = &json["files"][0];
    assert_eq!(file["path"], "model.onnx");
    let size = std::fs::metadata(package.join("model.onnx")).unwrap().len();
    assert_eq!(file["size"].as_u64(), Some(size));
    assert!(file["digest"].as_str().unwrap().starts_with("sha256:"));

    sandbox.json(&["pack", str(&package), "-o", "folder"]);
    let layout = sandbox.json(&["inspect", "folder"]);
    assert_eq!(layout["files"][0]["digest"], file["digest"]);
    assert!(layout["layers"].as_array().unwrap().len() >= 2, "{layout}");
    let human = text(&sandbox.run(&["inspect", str(&package)]));
    assert!(human.contains("plus-one 1.2.3") && human.contains("model.onnx"), "{human}");
}

#[test]
fn loading_finds_what_reading_does_not() {
    let sandbox = Sandbox::new();
    let good = sandbox.package("good");
    let json = sandbox.json(&["check", str(&good), "--load"]);
    assert_eq!(json["kind"], "passthrough");
    assert_eq!(json["graphs"][0]["backend"], "tract");
    let bad = sandbox.package_of("bad", b"not a model", "");
    sandbox.json(&["check", str(&bad)]);
    let output = sandbox.run(&["check", str(&bad), "--load"]);
    assert_eq!(output.status.code(), Some(65), "{}", text(&output));
}
