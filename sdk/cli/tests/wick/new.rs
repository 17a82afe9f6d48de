//! `wick new`: what it makes works as it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::support::{Sandbox, str, text};

/// wick's repository.
fn repository() -> PathBuf {
    fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")).unwrap()
}

/// Make a package whose code uses this repository's SDK.
fn new(sandbox: &Sandbox, name: &str, template: &str) -> PathBuf {
    let sdk = repository().join("sdk/guest");
    let made = sandbox.json(&["new", name, "--template", template, "--sdk", str(&sdk)]);
    assert_eq!(made["name"], name);
    sandbox.path(name)
}

/// Build its component offline, with the versions that this repository is locked to.
/// What it depends on is kept between runs.
fn build(dir: &Path, template: &str) {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("new-{template}"));
    fs::copy(repository().join("Cargo.lock"), dir.join("Cargo.lock")).unwrap();
    let output = Command::new(env!("CARGO"))
        .args(["build", "--offline", "--release", "--target", "wasm32-wasip2"])
        .current_dir(dir)
        .env("CARGO_TARGET_DIR", &target)
        .env_remove("RUSTFLAGS")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "run `cargo xtask setup` if a target or crate is missing: {}",
        text(&output)
    );
    let component = Path::new("wasm32-wasip2/release/handler.wasm");
    let place = dir.join("target").join(component);
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    fs::copy(target.join(component), place).unwrap();
}

#[test]
fn a_model_without_code_is_served_at_once() {
    let sandbox = Sandbox::new();
    let package = new(&sandbox, "plain", "passthrough");
    sandbox.json(&["check", str(&package)]);
    let answer = sandbox.json(&["infer", str(&package), "-i", "[0, 0, 0, 0]"]);
    assert_eq!(answer["outputs"][0]["data"], json!([0.25, 0.25, 0.25, 0.25]));
}

#[test]
fn a_handler_is_built_and_answers() {
    let sandbox = Sandbox::new();
    let package = new(&sandbox, "compass", "handler");
    let unbuilt = sandbox.run(&["check", str(&package)]);
    assert_eq!(unbuilt.status.code(), Some(65), "{}", text(&unbuilt));
    assert!(text(&unbuilt).contains("handler.wasm"), "{}", text(&unbuilt));
    build(&package, "handler");
    let check = sandbox.json(&["check", str(&package), "--load"]);
    assert_eq!(check["kind"], "handler");
    let answer = sandbox.json(&["infer", str(&package), "-i", "[0, 5, 0, 0]"]);
    assert_eq!(answer["outputs"][0]["data"], json!(["east"]));
    let refused = sandbox.run(&["infer", str(&package), "-i", "[0, 0, 0]"]);
    assert_eq!(refused.status.code(), Some(65), "{}", text(&refused));
}

#[test]
fn an_http_component_is_built_and_served() {
    let sandbox = Sandbox::new();
    let package = new(&sandbox, "web", "http");
    build(&package, "http");
    let mut server = sandbox.serve(&[str(&package)]);
    assert_eq!(server.ready["models"][0]["kind"], "http");
    let called = sandbox.run(&["infer", str(&package), "-i", "x=1"]);
    assert_eq!(called.status.code(), Some(64), "{}", text(&called));
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn folders_that_are_in_use_are_left_alone() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("full")).unwrap();
    fs::write(sandbox.path("full/wick.toml"), "mine").unwrap();
    let output = sandbox.run(&["new", "full"]);
    assert_eq!(output.status.code(), Some(73), "{}", text(&output));
    assert_eq!(fs::read_to_string(sandbox.path("full/wick.toml")).unwrap(), "mine");
    sandbox.json(&["new", "full", "--force", "--template", "passthrough"]);
    sandbox.json(&["check", "full"]);
}
