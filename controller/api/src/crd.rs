//! The CustomResourceDefinition: what is derived from the types, with the rules added and what
//! Kubernetes has no use for taken out.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use serde_json::{Value, json};

use crate::Model;
use crate::rules::RULES;

/// Longest name of a Model: with what a revision adds, the ReplicaSet's and the pod's hashes it
/// fits a label's 63 characters.
const MAX_NAME: usize = 35;

/// Names of Services start with a letter.
const NAME: &str = "^[a-z]([-a-z0-9]*[a-z0-9])?$";

/// The definition of `Model`.
pub fn crd() -> CustomResourceDefinition {
    let mut crd = serde_json::to_value(Model::crd()).expect("a definition is plain data");
    let schema = root(&mut crd);
    tidy(schema);
    schema["properties"]["metadata"] = json!({
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": MAX_NAME, "pattern": NAME}},
    });
    for rule in &RULES {
        let mut written = json!({"rule": rule.cel, "message": rule.message});
        if !rule.field.is_empty() {
            written["fieldPath"] = rule.field.into();
        }
        let place = &mut at(schema, rule.at)["x-kubernetes-validations"];
        match place {
            Value::Array(rules) => rules.push(written),
            _ => *place = json!([written]),
        }
    }
    serde_json::from_value(crd).expect("what was added belongs to a definition")
}

/// The schema of the one version that there is.
pub fn root(crd: &mut Value) -> &mut Value {
    &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
}

/// The schema at a path such as `spec.env[]`. A path that does not exist would make an object
/// of its own, which a test looks for.
fn at<'a>(schema: &'a mut Value, path: &str) -> &'a mut Value {
    path.split('.').fold(schema, |schema, part| {
        let (name, list) = part.strip_suffix("[]").map_or((part, false), |name| (name, true));
        let schema = &mut schema["properties"][name];
        if list { &mut schema["items"] } else { schema }
    })
}

/// An absent field has one spelling: it is left out, and never null.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            map.remove("nullable");
            map.values_mut().for_each(tidy);
        }
        Value::Array(list) => list.iter_mut().for_each(tidy),
        _ => {}
    }
}
