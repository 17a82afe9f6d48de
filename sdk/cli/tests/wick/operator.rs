//! `wick operator`: the definition, and what becomes of a Model.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Sandbox, str, text};

const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

const MODEL: &str = "
apiVersion: wick.dev/v1alpha1
kind: Model
metadata: {name: filetype, namespace: vision}
spec:
  package: {image: registry.example/vision/filetype:1.2.0}
";

fn sandbox(files: &[(&str, &str)]) -> Sandbox {
    let sandbox = Sandbox::new();
    for (name, content) in files {
        fs::write(sandbox.path(name), content).unwrap();
    }
    sandbox
}

fn kinds(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().unwrap().iter();
    items.map(|item| item["kind"].as_str().unwrap()).collect()
}

#[test]
fn the_definition_is_the_one_in_deploy() {
    let sandbox = sandbox(&[]);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/crds/wick.dev_models.yaml");
    let there = fs::read_to_string(path).unwrap();
    let printed = text(&sandbox.run(&["operator", "crd"]));
    assert!(there.ends_with(printed.trim_start()), "{printed}");
    let json = sandbox.json(&["operator", "crd"]);
    assert_eq!(json["metadata"]["name"], "models.wick.dev");
}

#[test]
fn a_model_becomes_a_service_with_slices_and_a_deployment() {
    let sandbox = sandbox(&[("model.yaml", MODEL)]);
    let list = sandbox.json(&["operator", "render", "-f", "model.yaml", "--digest", DIGEST]);
    let expected = ["Service", "EndpointSlice", "ControllerRevision", "Deployment"];
    assert_eq!(kinds(&list), expected);
    let pod = &list["items"][3]["spec"]["template"]["spec"];
    let image = format!("registry.example/vision/filetype@{DIGEST}");
    assert_eq!(pod["containers"][0]["image"], image);
    let yaml = text(&sandbox.run(&["operator", "render", "-f", "model.yaml", "--digest", DIGEST]));
    assert_eq!(yaml.matches("---\n").count(), 4, "{yaml}");
    assert!(yaml.contains("runtimeClassName: wick"), "{yaml}");
}

#[test]
fn several_models_of_a_file_are_rendered_one_after_the_other() {
    let pinned = MODEL.replace(":1.2.0", &format!("@{DIGEST}"));
    let two = format!("{pinned}---\n{}---\n", pinned.replace("name: filetype", "name: other"));
    let sandbox = sandbox(&[("two.yaml", &two)]);
    let list = sandbox.json(&["operator", "render", "--file", "two.yaml"]);
    assert_eq!(kinds(&list).len(), 8);
    assert_eq!(list["items"][4]["metadata"]["name"], "other");
    let output = sandbox.run(&["operator", "render", "-f", "two.yaml", "--digest", DIGEST]);
    assert_eq!(output.status.code(), Some(64), "{}", text(&output));
}

#[test]
fn a_tag_needs_the_digest_that_it_stands_for() {
    let sandbox = sandbox(&[("model.yaml", MODEL)]);
    let output = sandbox.run(&["operator", "render", "-f", "model.yaml"]);
    assert_eq!(output.status.code(), Some(65));
    let said = text(&output);
    assert!(said.contains("spec.package.image: ") && said.contains("--digest"), "{said}");
}

#[test]
fn every_mistake_is_told_with_its_path() {
    let bad =
        MODEL.replace("spec:", "spec:\n  scale: {minReplicas: -1, idleTimeout: soon}\n  modell: x");
    let sandbox = sandbox(&[("good.yaml", MODEL), ("bad.yaml", &format!("{MODEL}---{bad}"))]);
    let path = sandbox.path("bad.yaml");
    let output = sandbox.run(&["operator", "render", "-f", str(&path)]);
    assert_eq!(output.status.code(), Some(65));
    let said = text(&output);
    for expected in ["3 mistakes", "document 2: spec.modell: ", "spec.scale.minReplicas: "] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let json = sandbox.run(&["--output", "json", "operator", "render", "-f", "bad.yaml"]);
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["code"], "bad-model");
    let paths: Vec<&Value> =
        json["mistakes"].as_array().unwrap().iter().map(|one| &one["path"]).collect();
    let scale = "spec.scale";
    assert_eq!(
        json!(paths),
        json!(["spec.modell", format!("{scale}.idleTimeout"), format!("{scale}.minReplicas")])
    );
}

#[test]
fn what_is_no_yaml_and_what_is_not_there_say_so() {
    let sandbox = sandbox(&[("no.yaml", "a: [1"), ("empty.yaml", "---\n")]);
    let code = |file: &str| sandbox.run(&["operator", "render", "-f", file]).status.code();
    assert_eq!(code("no.yaml"), Some(65));
    assert_eq!(code("empty.yaml"), Some(65));
    assert_eq!(code("none.yaml"), Some(66));
}
