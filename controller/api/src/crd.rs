//! The CustomResourceDefinitions: what is derived from the types, with the rules added and what
//! Kubernetes has no use for taken out.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use serde_json::{Value, json};

use crate::Model;
use crate::fleet::{Rollout, Site};
use crate::rules::RULES;

/// Longest name of a Model: with what a revision adds, the ReplicaSet's and the pod's hashes it
/// fits a label's 63 characters.
const MAX_NAME: usize = 35;

/// Names of Services start with a letter.
const NAME: &str = "^[a-z]([-a-z0-9]*[a-z0-9])?$";

/// Names of sites and rollouts are DNS labels: a site's is a level of a topic.
const MAX_LABEL: usize = 63;
const LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

/// What of a rollout stays once it has begun.
const KEPT: [&str; 3] = ["select", "models", "remove"];

/// The definition of `Model`.
pub fn crd() -> CustomResourceDefinition {
    let mut crd = serde_json::to_value(Model::crd()).expect("a definition is plain data");
    let schema = root(&mut crd);
    tidy(schema);
    name(schema, NAME, MAX_NAME);
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

/// The definitions of `Site` and `Rollout`, which a hub reads.
pub fn fleet_crds() -> [CustomResourceDefinition; 2] {
    [Site::crd(), Rollout::crd()].map(|derived| {
        let kind = derived.spec.names.kind.clone();
        let mut crd = serde_json::to_value(derived).expect("a definition is plain data");
        let schema = root(&mut crd);
        tidy(schema);
        name(schema, LABEL, MAX_LABEL);
        if kind == "Rollout" {
            schema["x-kubernetes-validations"] = json!([{
                "rule": begun(),
                "message": "it has begun, and keeps its models, remove and select: give the change another name",
            }]);
        }
        serde_json::from_value(crd).expect("what was added belongs to a definition")
    })
}

/// CEL: either the hub has not begun with it, or each field that stays is as it was.
fn begun() -> String {
    let same = KEPT.map(|field| {
        let (new, old) = (format!("self.spec.{field}"), format!("oldSelf.spec.{field}"));
        format!("has({new}) == has({old}) && (!has({new}) || {new} == {old})")
    });
    format!("!has(oldSelf.status) || !has(oldSelf.status.phase) || ({})", same.join(" && "))
}

/// The schema of the one version that there is.
pub fn root(crd: &mut Value) -> &mut Value {
    &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
}

/// What names of these objects are.
fn name(schema: &mut Value, pattern: &str, max: usize) {
    schema["properties"]["metadata"] = json!({
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": max, "pattern": pattern}},
    });
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
