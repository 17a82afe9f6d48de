//! `wick key`, `sign`, `verify`, and `run` under a policy.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::support::{Sandbox, str, text};

const NAME: &str = "registry.example/vision/plus-one";

/// A packed image, a key `release`, and a policy that wants its signature for `NAME`.
fn prepared() -> Sandbox {
    let sandbox = Sandbox::new();
    let package = sandbox.package("plus-one");
    let name = format!("{NAME}:1.2.3");
    sandbox.json(&["pack", str(&package), "-o", "image.tar", "--name", &name]);
    sandbox.json(&["key", "generate", "release", "--no-passphrase"]);
    let policy = "default = \"deny\"\n[[key]]\nname = \"release\"\nfile = \"release.pub\"\n\
        [[rule]]\nimages = [\"registry.example/vision/*\"]\nkeys = [\"release\"]\n\
        [[rule]]\nimages = [\"localhost/*\"]\nunsigned = true\n";
    fs::write(sandbox.path("policy.toml"), policy).unwrap();
    sandbox
}

/// Run it, expect a refusal with this exit and code, and read the JSON of the failure.
#[track_caller]
fn refused(sandbox: &Sandbox, args: &[&str], exit: i32, code: &str) -> Value {
    let output = sandbox.run(&[args, &["--output", "json"]].concat());
    assert_eq!(output.status.code(), Some(exit), "{}", text(&output));
    let line = text(&output);
    let json: Value = serde_json::from_str(line.lines().last().unwrap()).unwrap();
    assert_eq!(json["code"], code, "{json}");
    json
}

#[test]
fn a_signed_image_is_verified_and_runs_under_the_policy() {
    let sandbox = prepared();
    let signed = sandbox.json(&["sign", "image.tar", "--key", "release.key"]);
    assert_eq!(signed["name"], NAME);
    assert!(sandbox.path("image.tar.envelope.json").exists());
    let verified = sandbox.json(&["verify", "image.tar", "--key", "release.pub"]);
    assert_eq!((&verified["ok"], &verified["digest"]), (&Value::from(true), &signed["digest"]));
    assert_eq!(verified["package"], "plus-one");
    let verified = sandbox.json(&["verify", "image.tar", "--policy", "policy.toml"]);
    assert_eq!(verified["by"], serde_json::json!(["release"]));
    assert_eq!(verified["signed_at"], signed["signed_at"]);

    let server = sandbox.serve(&["image.tar", "--policy", "policy.toml"]);
    let answer = sandbox.json(&["infer", server.url(), "-i", "[1, 2, 3, 4]"]);
    assert_eq!(answer["outputs"][0]["data"], serde_json::json!([2.0, 3.0, 4.0, 5.0]));
}

#[test]
fn an_unsigned_image_does_not_run_and_a_directory_neither() {
    let sandbox = prepared();
    let run = ["run", "image.tar", "--addr", "127.0.0.1:0", "--policy", "policy.toml"];
    let json = refused(&sandbox, &run, 77, "unsigned");
    assert!(json["help"].as_str().unwrap().contains("wick sign"), "{json}");
    refused(
        &sandbox,
        &["run", "image.tar", "--check-config", "--policy", "policy.toml"],
        77,
        "unsigned",
    );
    let run = ["run", "plus-one", "--addr", "127.0.0.1:0", "--policy", "policy.toml"];
    let json = refused(&sandbox, &run, 65, "not-packed");
    assert!(
        json["causes"].to_string().contains("wick pack")
            || json["error"].to_string().contains("wick pack"),
        "{json}"
    );
}

#[test]
fn a_signature_by_another_key_or_for_another_image_does_not_count() {
    let sandbox = prepared();
    sandbox.json(&["key", "generate", "other", "--no-passphrase"]);
    sandbox.json(&["sign", "image.tar", "--key", "other.key"]);
    let verify = ["verify", "image.tar", "--policy", "policy.toml"];
    refused(&sandbox, &verify, 77, "signature-by-another");
    refused(&sandbox, &["verify", "image.tar", "--key", "release.pub"], 77, "signature-by-another");
    // Signing adds: now there are two.
    sandbox.json(&["sign", "image.tar", "--key", "release.key"]);
    sandbox.json(&verify);

    let other = sandbox.package_of("minus", b"other weights", "");
    sandbox.json(&["pack", str(&other), "-o", "other.tar", "--name", &format!("{NAME}:2")]);
    fs::copy(sandbox.path("image.tar.envelope.json"), sandbox.path("other.tar.envelope.json"))
        .unwrap();
    refused(&sandbox, &["verify", "other.tar", "--policy", "policy.toml"], 77, "unsigned");
    let name = ["--name", "registry.example/vision/ocr"];
    refused(&sandbox, &[&verify[..], &name].concat(), 77, "signature-for-another");
    // An image that calls itself what needs no signature.
    sandbox.json(&["pack", str(&other), "-o", "self.tar", "--name", "localhost/x"]);
    refused(&sandbox, &["verify", "self.tar", "--policy", "policy.toml"], 77, "policy-denies");
    sandbox.json(&["verify", "self.tar", "--policy", "policy.toml", "--name", "localhost/x"]);
}

#[test]
fn changed_bytes_are_found_though_the_signature_is_good() {
    let sandbox = prepared();
    sandbox.json(&["sign", "image.tar", "--key", "release.key"]);
    let path = sandbox.path("image.tar");
    let mut bytes = fs::read(&path).unwrap();
    let model = fs::read(sandbox.path("plus-one/model.onnx")).unwrap();
    let at = bytes.windows(model.len()).position(|window| window == model).unwrap();
    bytes[at + model.len() / 2] ^= 1;
    fs::write(&path, bytes).unwrap();
    refused(&sandbox, &["verify", "image.tar", "--key", "release.pub"], 65, "damaged-layout");
    let run = ["run", "image.tar", "--addr", "127.0.0.1:0", "--policy", "policy.toml"];
    refused(&sandbox, &run, 65, "damaged-layout");
}

#[test]
fn a_reload_is_checked_as_the_first_load_is() {
    let sandbox = prepared();
    sandbox.json(&["sign", "image.tar", "--key", "release.key"]);
    let server = sandbox.serve(&["image.tar", "--policy", "policy.toml", "--model-control"]);
    let other = sandbox.package_of("plus-one", &wick_testing::onnx::add_scalar(5.0, &[-1, 4]), "");
    sandbox.json(&["pack", str(&other), "-o", "image.tar", "--name", &format!("{NAME}:1.2.3")]);
    let url = format!("{}/v2/repository/models/plus-one/load", server.url());
    let output =
        std::process::Command::new("curl").args(["-s", "-X", "POST", &url]).output().unwrap();
    let said = text(&output);
    assert!(said.contains("cannot open the package"), "{said}");
    let answer = sandbox.json(&["infer", server.url(), "-i", "[1, 2, 3, 4]"]);
    assert_eq!(answer["outputs"][0]["data"], serde_json::json!([2.0, 3.0, 4.0, 5.0]));
}

#[test]
fn the_nodes_store_has_what_is_signed_for_it() {
    let sandbox = prepared();
    sandbox.json(&["sign", "image.tar", "--key", "release.key", "--node"]);
    assert!(!sandbox.path("image.tar.envelope.json").exists());
    sandbox.json(&["verify", "image.tar", "--policy", "policy.toml"]);
    assert_eq!(fs::read_dir(sandbox.path("signatures/by-package")).unwrap().count(), 1);
}

#[test]
fn a_key_is_its_owners_and_is_never_replaced() {
    let sandbox = Sandbox::new();
    let made = sandbox.json(&["key", "generate", "k", "--no-passphrase"]);
    assert_eq!((&made["encrypted"], &made["algorithm"]), (&false.into(), &"ed25519".into()));
    let mode = fs::metadata(sandbox.path("k.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    for file in ["k.key", "k.pub"] {
        assert_eq!(sandbox.json(&["key", "show", file])["id"], made["id"]);
    }
    let before = fs::read(sandbox.path("k.key")).unwrap();
    refused(&sandbox, &["key", "generate", "k", "--no-passphrase"], 73, "output-occupied");
    assert_eq!(fs::read(sandbox.path("k.key")).unwrap(), before);
}

#[test]
fn a_passphrase_opens_a_key_and_nothing_else_does() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("phrase"), "correct horse\n").unwrap();
    let made = sandbox.json(&["key", "generate", "k", "--passphrase-file", "phrase"]);
    assert_eq!(made["encrypted"], true);
    let shown = sandbox.json(&["key", "show", "k.key", "--passphrase-file", "phrase"]);
    assert_eq!(shown["id"], made["id"]);
    let json = refused(&sandbox, &["key", "show", "k.key"], 1, "passphrase");
    assert!(json["error"].as_str().unwrap().starts_with("k.key: "), "{json}");
    fs::write(sandbox.path("phrase"), "battery staple\n").unwrap();
    refused(&sandbox, &["key", "show", "k.key", "--passphrase-file", "phrase"], 1, "passphrase");
    fs::write(sandbox.path("phrase"), "short\n").unwrap();
    refused(&sandbox, &["key", "generate", "l", "--passphrase-file", "phrase"], 64, "usage");
}

#[test]
fn mistakes_of_a_policy_are_told_together() {
    let sandbox = prepared();
    fs::write(sandbox.path("policy.toml"), "defualt = \"deny\"\n[[rule]]\nimages = [\"x\"]\n")
        .unwrap();
    let json =
        refused(&sandbox, &["verify", "image.tar", "--policy", "policy.toml"], 65, "bad-policy");
    assert_eq!(json["mistakes"].as_array().unwrap().len(), 4, "{json}");
}

#[test]
fn a_dry_run_signs_nothing() {
    let sandbox = prepared();
    let plan = sandbox.json(&["sign", "image.tar", "--key", "release.key", "--dry-run"]);
    assert_eq!(plan["dry_run"], true);
    assert!(!sandbox.path("image.tar.envelope.json").exists());
}
