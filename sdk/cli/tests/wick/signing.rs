//! `wick key`, `sign`, `verify`, and `run` under a policy.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::{Value, json};
use wick_package::Digest;
use wick_registry::Store;

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

#[test]
fn inspect_shows_who_has_signed_what_and_when() {
    let sandbox = prepared();
    let inspect = |more: &[&str]| sandbox.json(&[&["inspect", "image.tar"], more].concat());
    assert_eq!(inspect(&[])["signatures"], json!([]));
    let human = |more: &[&str]| text(&sandbox.run(&[&["inspect", "image.tar"], more].concat()));
    assert!(human(&[]).contains("Signatures\nnone"), "{}", human(&[]));

    let signed = sandbox.json(&["sign", "image.tar", "--key", "release.key"]);
    let id = sandbox.json(&["key", "show", "release.pub"])["id"].clone();
    sandbox.json(&["key", "generate", "other", "--no-passphrase"]);
    let shown = |by: Value, verified: Value| {
        json!([{
            "form": "sigstore-bundle", "key": id, "by": by, "verified": verified, "name": NAME,
            "created": signed["signed_at"], "fault": null,
        }])
    };
    assert_eq!(inspect(&[])["signatures"], shown(Value::Null, Value::Null));
    let by_key = inspect(&["--key", "other.pub", "--key", "release.pub"]);
    assert_eq!(by_key["signatures"], shown("release.pub".into(), true.into()));
    let by_policy = inspect(&["--policy", "policy.toml"]);
    assert_eq!(by_policy["signatures"], shown("release".into(), true.into()));
    let by_none = inspect(&["--key", "other.pub"]);
    assert_eq!(by_none["signatures"], shown(Value::Null, false.into()));
    let short = &id.as_str().unwrap()[..19];
    for (more, by) in [(&["--policy", "policy.toml"][..], "release"), (&[], "not checked")] {
        let text = human(more);
        for words in ["sigstore-bundle", short, by, NAME, signed["signed_at"].as_str().unwrap()] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }
    // In the node's store as well it is still one; a folder has none.
    sandbox.json(&["verify", "image.tar", "--key", "release.pub", "--node"]);
    assert_eq!(inspect(&[])["signatures"].as_array().unwrap().len(), 1);
    assert_eq!(sandbox.json(&["inspect", "plus-one"])["signatures"], json!([]));
}

#[test]
fn verify_writes_the_envelope_with_the_signatures_that_hold() {
    let sandbox = prepared();
    let verify = ["verify", "image.tar", "--policy", "policy.toml", "--out", "out.json"];
    refused(&sandbox, &verify, 77, "unsigned");
    assert!(!sandbox.path("out.json").exists());
    sandbox.json(&["key", "generate", "other", "--no-passphrase"]);
    sandbox.json(&["sign", "image.tar", "--key", "other.key"]);
    sandbox.json(&["sign", "image.tar", "--key", "release.key"]);
    assert_eq!(sandbox.json(&verify)["envelope"], "out.json");
    let envelope: Value =
        serde_json::from_slice(&fs::read(sandbox.path("out.json")).unwrap()).unwrap();
    assert_eq!(
        envelope["signatures"].as_array().unwrap().len(),
        1,
        "only that of the policy's key"
    );
    // It is all that another machine needs beside the image.
    fs::remove_file(sandbox.path("image.tar.envelope.json")).unwrap();
    refused(&sandbox, &["verify", "image.tar", "--policy", "policy.toml"], 77, "unsigned");
    let given = ["verify", "image.tar", "--policy", "policy.toml", "--envelope", "out.json"];
    let node = sandbox.json(&[&given[..], &["--node"]].concat());
    assert!(node["envelope"].as_str().unwrap().ends_with("signatures"), "{node}");
    sandbox.json(&["verify", "image.tar", "--policy", "policy.toml"]);
}

/// The same layout with another text, of the same length, for one of its blobs' bytes, and with all
/// digests that follow from it.
fn rewritten(layout: &Path, from: &str, to: &str) {
    let mut changes = vec![(from.to_owned(), to.to_owned())];
    let blobs = layout.join("blobs/sha256");
    loop {
        let mut paths: Vec<_> =
            fs::read_dir(&blobs).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.push(layout.join("index.json"));
        let mut found = false;
        for path in paths {
            let bytes = fs::read(&path).unwrap();
            let mut new = bytes.clone();
            for (from, to) in &changes {
                let at = new.windows(from.len()).position(|window| window == from.as_bytes());
                if let Some(at) = at {
                    new[at..at + from.len()].copy_from_slice(to.as_bytes());
                }
            }
            if new == bytes {
                continue;
            }
            found = true;
            if path.ends_with("index.json") {
                fs::write(&path, new).unwrap();
                continue;
            }
            fs::remove_file(&path).unwrap();
            let hex = Digest::of(&new).hex();
            fs::write(blobs.join(&hex), new).unwrap();
            let old = path.file_name().unwrap().to_str().unwrap().to_owned();
            changes.push((old, hex));
        }
        if !found {
            return;
        }
    }
}

#[test]
fn nothing_of_a_package_is_opened_before_its_signature_was_found() {
    let sandbox = prepared();
    let name = format!("{NAME}:1.2.3");
    let layout = sandbox.path("layout");
    let pack = ["pack", "plus-one", "--format", "folder", "-o", str(&layout), "--name", &name];
    sandbox.json(&pack);
    let manifest = fs::read_to_string(sandbox.path("plus-one/wick.toml")).unwrap();
    let broken = manifest.replace("version = ", "versiom = ");
    let hex = |text: &str| Digest::of(text.as_bytes()).hex();
    rewritten(&layout, &hex(&manifest), &hex(&broken));
    rewritten(&layout, "version = ", "versiom = ");
    let store = Store::open(sandbox.path("store")).unwrap();
    store.import_layout(&layout, &name.parse().unwrap()).unwrap();

    let run = ["run", &name, "--store", "store", "--addr", "127.0.0.1:0"];
    let under = [&run[..], &["--policy", "policy.toml"]].concat();
    refused(&sandbox, &under, 77, "unsigned");
    refused(&sandbox, &[&under[..], &["--check-config"]].concat(), 77, "unsigned");
    let verify = ["verify", &name, "--store", "store", "--policy", "policy.toml"];
    refused(&sandbox, &verify, 77, "unsigned");
    // It is the signature that was missed: else the mistake is told.
    let json = refused(&sandbox, &run, 65, "bad-manifest");
    assert!(json["mistakes"].to_string().contains("versiom"), "{json}");
}
