//! The definition as users apply it: the file in `deploy/crds` is this one, all of it is bounded,
//! and what it refuses is refused here too.

use std::fs;
use std::path::Path;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};
use wick_api::{Model, Span, parse};

/// Set by `cargo xtask crd`, which writes the file.
const WRITE: &str = "WICK_WRITE_CRD";

const HEADER: &str = "# Written by `cargo xtask crd` from controller/api; changes here are lost.\n";

/// The schemas of `Model`, `Site` and `Rollout`.
fn schemas() -> Vec<Value> {
    let all = definitions().map(|crd| {
        let mut crd = serde_json::to_value(crd).unwrap();
        crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].take()
    });
    all.into()
}

fn definitions() -> [CustomResourceDefinition; 3] {
    let [site, rollout] = wick_api::fleet_crds();
    [wick_api::crd(), site, rollout]
}

fn model(spec: Value) -> Value {
    json!({
        "apiVersion": "wick.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"name": "filetype", "namespace": "vision"},
        "spec": spec,
    })
}

/// A good Model but for what `change` does to it.
fn with(change: impl Fn(&mut Value)) -> Value {
    let image = "registry.example/vision/filetype:1.2.0";
    let mut value = model(json!({"package": {"image": image}}));
    change(&mut value);
    value
}

fn mistakes(value: Value) -> Vec<String> {
    let found = parse(value).err().unwrap_or_default();
    found.iter().map(ToString::to_string).collect()
}

#[test]
fn the_files_in_deploy_are_these_definitions() {
    for crd in definitions() {
        let file = format!("../../deploy/crds/{}_{}.yaml", crd.spec.group, crd.spec.names.plural);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let text = HEADER.to_owned() + &serde_saphyr::to_string(&crd).unwrap();
        if std::env::var_os(WRITE).is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &text).unwrap();
        }
        let there = fs::read_to_string(&path).unwrap_or_default();
        let shown = path.display();
        assert!(there == text, "{shown} is not what the types say: run `cargo xtask crd`");
        // The YAML says what the types say, whoever wrote it.
        let read: Value = serde_saphyr::from_str(&there).unwrap();
        assert_eq!(read, serde_json::to_value(crd).unwrap());
    }
}

#[test]
fn every_text_list_and_map_is_bounded() {
    fn walk(path: &str, schema: &Value, found: &mut Vec<String>) {
        let any = |names: &[&str]| names.iter().any(|name| schema.get(name).is_some());
        let is = schema["type"].as_str().unwrap_or("none");
        let bounded = match is {
            "string" => any(&["maxLength", "enum"]) || schema["format"] == "date-time",
            "array" => any(&["maxItems"]),
            "object" => schema.get("additionalProperties").is_none() || any(&["maxProperties"]),
            "integer" | "boolean" => true,
            _ => schema["x-kubernetes-int-or-string"] == true && any(&["maxLength"]),
        };
        if !bounded {
            found.push(format!("{path} ({is})"));
        }
        if path.starts_with(".spec") && schema["description"].is_null() && !path.ends_with(']') {
            found.push(format!("{path} has no description"));
        }
        for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
            walk(&format!("{path}.{name}"), schema, found);
        }
        for (key, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
            if let Some(schema) = schema.get(key).filter(|schema| schema.is_object()) {
                walk(&format!("{path}{mark}"), schema, found);
            }
        }
    }
    let mut found = Vec::new();
    for schema in schemas() {
        for part in ["spec", "status"] {
            walk(&format!(".{part}"), &schema["properties"][part], &mut found);
        }
    }
    found.retain(|line| !line.contains("{} has no"));
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn defaults_of_the_schema_are_those_of_the_types() {
    let model = parse(with(|_| {})).unwrap();
    let schema = &schemas()[0];
    let spec = serde_json::to_value(&model.spec).unwrap();
    for field in ["scale", "rollout", "prefetch"] {
        assert_eq!(schema["properties"]["spec"]["properties"][field]["default"], spec[field]);
    }
    assert_eq!(model.spec.scale.idle_timeout, Span::seconds(60));
    assert_eq!(model.spec.rollout.steps.len(), 2);
}

#[test]
fn a_part_that_is_written_keeps_the_other_defaults() {
    let model = parse(with(|model| model["spec"]["scale"] = json!({"maxReplicas": 3}))).unwrap();
    assert_eq!((model.spec.scale.min_replicas, model.spec.scale.max_replicas), (0, 3));
    assert_eq!(model.spec.scale.hold.max_requests, 1000);
}

#[test]
fn what_is_read_is_written_as_it_was() {
    let full = model(json!({
        "package": {
            "image": "registry.example/vision/filetype:1.2.0",
            "signature": {"keys": ["-----BEGIN PUBLIC KEY-----\nMCow\n-----END PUBLIC KEY-----\n"]},
        },
        "env": [
            {"name": "MODE", "value": "fast"},
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "api", "key": "token"}}},
        ],
        "network": ["db.local:5432"],
        "resources": {"limits": {"memory": "256Mi", "nvidia.com/gpu": "1"}},
        "devices": [{"name": "npu", "resourceClaimTemplateName": "npu"}],
        "scheduling": {"nodeSelector": {"kubernetes.io/arch": "arm64"}},
        "serviceAccountName": "models",
        "imagePullSecrets": [{"name": "registry"}],
    }));
    let read: Model = parse(full.clone()).unwrap();
    let written = serde_json::to_value(&read).unwrap();
    for (field, value) in full["spec"].as_object().unwrap() {
        assert_eq!(&written["spec"][field], value, "{field}");
    }
}

/// What is wrong below `spec`, and the beginnings of what is said about it. The suite `operator`
/// compares many more with a real API server.
const WRONG: &[(&str, &[&str])] = &[
    ("package: {}", &["spec.package.image: is missing"]),
    ("package: {image: a b:1}", &["spec.package.image: must match"]),
    ("package: {image: a/b}", &["spec.package.image: must have a tag"]),
    ("scale: {minReplica: 1}", &["spec.scale.minReplica: is not known; there are "]),
    ("scale: {minReplicas: '1'}", &["spec.scale.minReplicas: must be an integer, and is \"1\""]),
    ("scale: {minReplicas: -1}", &["spec.scale.minReplicas: must be at least 0, and is -1"]),
    ("scale: {minReplicas: 4, maxReplicas: 3}", &["spec.scale.maxReplicas: must not be less"]),
    ("scale: {idleTimeout: 1 minute}", &["spec.scale.idleTimeout: must match"]),
    ("scale: {idleTimeout: 60}", &["spec.scale.idleTimeout: must be a string"]),
    ("scale: {idleTimeout: null}", &["spec.scale.idleTimeout: must be a string, and is null"]),
    ("scale: {panicWindow: 2m}", &["spec.scale.panicWindow: must be at least"]),
    ("scale: {horizontalPodAutoscaler: {}}", &["spec.scale.horizontalPodAutoscaler: needs"]),
    ("scale: 1", &["spec.scale: must be an object, and is 1"]),
    ("env: [{name: A, value: a}, {name: A, value: b}]", &["spec.env[1]: is there twice"]),
    (
        "env: [{name: A}, {name: B, value: b}, {name: C}]",
        &["spec.env[0]: must have either", "spec.env[2]: must have either"],
    ),
    ("env: [{name: 1A, value: a}]", &["spec.env[0].name: must match"]),
    ("env: [{name: A, valueFrom: {}}]", &["spec.env[0].valueFrom: must have either"]),
    ("network: [db]", &["spec.network[0]: must match"]),
    ("network: ['db:1', 'db:70000']", &["spec.network[1]: must end with"]),
    ("resources: {limits: {memory: 1 GB}}", &["spec.resources.limits.memory: must match"]),
    ("resources: {limits: {memory: true}}", &["spec.resources.limits.memory: must be a number or"]),
    ("rollout: {steps: [{weight: 50}, {weight: 50}]}", &["spec.rollout.steps: must each"]),
    ("rollout: {steps: [{weight: 100}]}", &["spec.rollout.steps[0].weight: must be at most 99"]),
    (
        "rollout: {onFailure: Retry}",
        &["spec.rollout.onFailure: must be one of \"Rollback\", \"Pause\""],
    ),
    (
        "rollout: {gates: {maxErrorRateIncrease: '1'}}",
        &["spec.rollout.gates.maxErrorRateIncrease: must match"],
    ),
    ("devices: [{name: npu}]", &["spec.devices[0]: must have either"]),
    (
        "scheduling: {tolerations: [{value: a}]}",
        &["spec.scheduling.tolerations[0].key: may only be left out"],
    ),
    ("modell: x", &["spec.modell: is not known; there are devices, env, "]),
];

fn check(value: Value, expected: &[&str]) {
    let found = mistakes(value.clone());
    let same = found.len() == expected.len()
        && found.iter().zip(expected).all(|(found, expected)| found.starts_with(expected));
    assert!(same, "{value}\n{found:#?}\n{expected:#?}");
}

#[test]
fn every_mistake_is_told_with_its_path() {
    for (yaml, expected) in WRONG {
        let spec: Value = serde_saphyr::from_str(yaml).unwrap();
        let all = |model: &mut Value| {
            for (field, value) in spec.as_object().unwrap() {
                model["spec"][field] = value.clone();
            }
        };
        check(with(all), expected);
    }
    check(json!({"kind": "Model"}), &["apiVersion: ", "metadata.name: ", "spec: is missing"]);
    check(json!(7), &["apiVersion: ", "kind: ", "metadata.name: ", ": must be an object"]);
    check(with(|model| model["kind"] = "Modell".into()), &["kind: "]);
    check(with(|model| model["specs"] = json!({})), &["specs: is not known"]);
    check(with(|model| model["metadata"]["name"] = "1st".into()), &["metadata.name: must match"]);
    let long = "m".repeat(36);
    check(
        with(|model| model["metadata"]["name"] = long.clone().into()),
        &["metadata.name: has 36"],
    );
}

#[test]
fn what_is_repeated_of_a_wrong_value_is_short() {
    let found = mistakes(with(|m| m["spec"]["rollout"] = "x".repeat(10_000).into()));
    assert_eq!(found.len(), 1);
    assert!(found[0].len() < 300, "{}", found[0].len());
    let many = json!((0..64).map(|_| json!({"name": "1"})).collect::<Vec<_>>());
    let found = mistakes(with(|m| m["spec"]["env"] = many.clone()));
    assert_eq!(found.len(), 50);
}
