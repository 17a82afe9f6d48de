//! What wick says when something is wrong, and how it ends.

use std::fs;

use serde_json::Value;

use crate::support::{Sandbox, str, text};

#[test]
fn broken_toml_is_reported_with_every_mistake_at_once() {
    let sandbox = Sandbox::new();
    let package = sandbox.package("plus-one");
    let broken = "[package]\nname = \"Not A Name\"\nversion = \"one\"\ncolour = \"red\"\n\
                  [[graph]]\nname = \"g\"\npath = \"../up\"\n";
    fs::write(package.join("wick.toml"), broken).unwrap();

    let output = sandbox.run(&["check", str(&package)]);
    assert_eq!(output.status.code(), Some(65));
    let stderr = String::from_utf8_lossy(&output.stderr);
    for part in
        ["error: ", "wick.toml:2:", "wick.toml:3:", "wick.toml:4:", "wick.toml:7:", "help: "]
    {
        assert!(stderr.contains(part), "no {part} in {stderr}");
    }

    let output = sandbox.run(&["check", str(&package), "--output", "json"]);
    assert_eq!(output.status.code(), Some(65));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["code"], "bad-manifest");
    assert_eq!(json["mistakes"].as_array().unwrap().len(), 4, "{json}");
}

#[test]
fn exit_codes_tell_what_kind_of_thing_went_wrong() {
    let sandbox = Sandbox::new();
    let package = sandbox.package("plus-one");
    let package = str(&package);
    let nobody = "http://127.0.0.1:1";
    let cases: &[(&[&str], i32)] = &[
        (&["--version"], 0),
        (&["help"], 0),
        (&["frobnicate"], 64),
        (&["infer"], 64),
        (&["check", "nothing-here"], 66),
        (&["infer", "nothing-here", "-i", "1"], 66),
        (&["infer", nobody, "m", "-i", "x=1"], 69),
        (&["infer", "https://edge", "m"], 64),
        (&["infer", package, "-i", "x=[1, 2, 3]"], 65),
        (&["infer", package, "-i", "z=[1, 2, 3, 4]"], 64),
        (&["infer", package], 64),
        (&["infer", package, "other-model", "-i", "[1, 2, 3, 4]"], 64),
        (&["check", package, "--output", "raw"], 64),
        (&["run", package, "--drain", "soon"], 64),
        (&["new", package], 73),
    ];
    for (args, code) in cases {
        let output = sandbox.run(args);
        assert_eq!(output.status.code(), Some(*code), "{args:?}: {}", text(&output));
        if *code != 0 {
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(stderr.starts_with("error: "), "{args:?}: {stderr}");
        }
    }
}

#[test]
fn errors_are_json_where_json_is_asked_for() {
    let sandbox = Sandbox::new();
    for args in [&["check", "nothing-here"][..], &["frobnicate"], &["run"]] {
        let output = sandbox.run(&[args, &["--output", "json"]].concat());
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(json["error"].is_string() && json["code"].is_string(), "{args:?}: {json}");
        assert_eq!(json["exit"].as_i64(), output.status.code().map(i64::from), "{args:?}");
    }
}

#[test]
fn help_lists_the_exit_codes() {
    let sandbox = Sandbox::new();
    let help = text(&sandbox.run(&["--help"]));
    assert!(help.contains("Exit codes:") && help.contains(" 69  "), "{help}");
}

#[test]
fn completions_are_there_for_every_shell() {
    let sandbox = Sandbox::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = sandbox.run(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        assert!(text(&output).contains("inspect"), "{shell}");
    }
}

#[test]
fn backends_are_listed_with_the_built_in_one() {
    let sandbox = Sandbox::new();
    let json = sandbox.json(&["backend", "list"]);
    let backends = json["backends"].as_array().unwrap();
    assert!(backends.iter().any(|backend| backend["name"] == "tract"), "{json}");
    let missing = sandbox.run(&["backend", "remove", "onnxruntime"]);
    assert_eq!(missing.status.code(), Some(66), "{}", text(&missing));
}
