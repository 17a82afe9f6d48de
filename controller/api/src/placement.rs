//! Where pods may run, and what they have there.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;
use crate::text::Quantity;

/// Tolerations of one Model.
const MAX_TOLERATIONS: usize = 32;

/// Constraints on how pods are spread.
const MAX_SPREAD: usize = 4;

/// What each pod requests and may use.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// What a node must have free.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::amounts")]
    pub requests: BTreeMap<String, Quantity>,
    /// What a pod may use at most, and whole devices such as `nvidia.com/gpu: 1`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::amounts")]
    pub limits: BTreeMap<String, Quantity>,
}

/// A claim on a device of each pod.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DeviceClaim {
    /// What the pod calls the claim.
    #[schemars(schema_with = "schema::label")]
    pub name: String,
    /// A ResourceClaim of the namespace, which all pods share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::subdomain")]
    pub resource_claim_name: Option<String>,
    /// A ResourceClaimTemplate of the namespace: each pod has a claim of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::subdomain")]
    pub resource_claim_template_name: Option<String>,
    /// The request of the claim that is meant; all of them unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label")]
    pub request: Option<String>,
}

/// Which nodes the pods may run on.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Scheduling {
    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::selector")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the pods bear.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_TOLERATIONS), extend("x-kubernetes-list-type" = "atomic"))]
    pub tolerations: Vec<Toleration>,
    /// How pods are spread over nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MAX_SPREAD),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["topologyKey"])
    )]
    pub topology_spread_constraints: Vec<SpreadConstraint>,
    /// How important the pods are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::subdomain")]
    pub priority_class_name: Option<String>,
}

/// A taint that the pods bear.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Toleration {
    /// The taint's key; every taint unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::qualified")]
    pub key: Option<String>,
    /// Equal: key and value are the taint's. Exists: its key is.
    #[serde(default)]
    pub operator: Operator,
    /// The taint's value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label_value")]
    pub value: Option<String>,
    /// The taint's effect; every effect unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "effect")]
    pub effect: Option<String>,
    /// How long a pod stays where it may no longer be, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub toleration_seconds: Option<i64>,
}

/// How a toleration is compared with a taint.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Operator {
    #[default]
    Equal,
    Exists,
}

/// How pods are spread over the values of one label of nodes.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SpreadConstraint {
    /// The label, such as `kubernetes.io/hostname`.
    #[schemars(schema_with = "schema::qualified")]
    pub topology_key: String,
    /// How many pods more one value may have than another.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 100))]
    pub max_skew: i32,
    /// What happens to a pod that can't be spread so.
    #[serde(default)]
    pub when_unsatisfiable: WhenUnsatisfiable,
}

/// What happens to a pod that can't be spread as asked.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WhenUnsatisfiable {
    #[default]
    ScheduleAnyway,
    DoNotSchedule,
}

fn one() -> i32 {
    1
}

fn effect(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "string",
        "enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"],
    })
}

// === impl Resources ===

impl Resources {
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.limits.is_empty()
    }
}

// === impl Scheduling ===

impl Scheduling {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

// === impl Operator and WhenUnsatisfiable ===

impl Operator {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "Equal",
            Self::Exists => "Exists",
        }
    }
}

impl WhenUnsatisfiable {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ScheduleAnyway => "ScheduleAnyway",
            Self::DoNotSchedule => "DoNotSchedule",
        }
    }
}
