//! What is said of a Model: written by the controller alone, through the status subresource.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::reason::Reason;
use crate::schema;

/// Conditions of one Model: three are ours, and others may add theirs.
const MAX_CONDITIONS: usize = 16;

/// Generations of which it is remembered what their tags stood for: the most that are kept to go
/// back to, and the present one.
const MAX_RESOLVED: usize = 21;

/// Revisions that drain at the same time; the operator keeps to fewer.
const MAX_DRAINING: usize = 8;

/// What is said of a Model.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ModelStatus {
    /// The generation that all of this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Progressing and Degraded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MAX_CONDITIONS),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
    /// The revision that traffic goes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<RevisionStatus>,
    /// The revision that traffic moves to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<RevisionStatus>,
    /// Where the rollout is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStatus>,
    /// Pods of all revisions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Those that are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// The device in use, as the workers say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::shown")]
    pub device: Option<String>,
    /// Where the model is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    /// What activators do for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activator: Option<ActivatorStatus>,
    /// What the tag of each generation stood for when it was asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MAX_RESOLVED),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["generation"])
    )]
    pub resolved: Vec<ResolvedPackage>,
}

/// One aspect of a Model's state.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// The aspect.
    #[serde(rename = "type")]
    #[schemars(schema_with = "schema::qualified")]
    pub type_: String,
    /// Whether it is so.
    pub status: Status,
    /// Why, in one word.
    #[schemars(length(min = 1, max = 256))]
    pub reason: String,
    /// Why, for people.
    #[schemars(schema_with = "schema::message")]
    pub message: String,
    /// When its status last changed.
    #[schemars(schema_with = "schema::time")]
    pub last_transition_time: Time,
    /// The generation that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// Whether something is so.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    True,
    False,
    Unknown,
}

/// A revision: one package with one way to run it.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RevisionStatus {
    /// Its name, which its Deployment has too.
    #[schemars(schema_with = "schema::label")]
    pub name: String,
    /// The image by its digest.
    #[schemars(schema_with = "schema::shown")]
    pub image: String,
    /// Requests of a hundred that it gets.
    #[schemars(range(min = 0, max = 100))]
    pub weight: i32,
    /// Its pods.
    pub replicas: i32,
    /// Those that are ready.
    pub ready_replicas: i32,
}

/// Where a rollout is. An operator that starts anew goes on from here.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// What is going on.
    pub phase: RolloutPhase,
    /// The revision that traffic goes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label")]
    pub active: Option<String>,
    /// The revision that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label")]
    pub candidate: Option<String>,
    /// The revision to go back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label")]
    pub previous: Option<String>,
    /// The step, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<i32>,
    /// Since when it is in this phase or step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub since: Option<MicroTime>,
    /// Since when the candidate is not ready any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub unready_since: Option<MicroTime>,
    /// Whether the candidate gets all traffic at once, as when somebody goes back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub direct: bool,
    /// Why the candidate is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label_value")]
    pub reason: Option<String>,
    /// The revision that was left, and is not tried again while the spec asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<RejectedStatus>,
    /// The last command that was obeyed or refused, as its annotation had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::shown")]
    pub obeyed: Option<String>,
    /// Revisions without traffic whose pods still finish what they have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MAX_DRAINING),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub draining: Vec<DrainingStatus>,
}

/// A revision that was left.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct RejectedStatus {
    /// Its name.
    #[schemars(schema_with = "schema::label")]
    pub name: String,
    /// Why, as in a condition.
    #[schemars(schema_with = "schema::label_value")]
    pub reason: String,
}

/// A revision whose pods still finish what they have.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct DrainingStatus {
    /// Its name.
    #[schemars(schema_with = "schema::label")]
    pub name: String,
    /// Until when its pods are kept.
    #[schemars(schema_with = "schema::time")]
    pub until: MicroTime,
}

/// What is going on with a candidate.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RolloutPhase {
    #[default]
    Idle,
    Starting,
    Late,
    Stepping,
    Held,
}

/// Where a model is called.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The URL inside of the cluster.
    #[schemars(schema_with = "schema::shown")]
    pub url: String,
}

/// What activators do for a Model: the operator says it, they read it.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActivatorStatus {
    /// The port that they listen on for this Model alone.
    #[schemars(range(min = 1, max = 65_535))]
    pub port: i32,
    /// Whether requests wait for a pod; they are answered 503 at once otherwise.
    pub hold: bool,
    /// Whether clients are told to close their connections, so that new ones go to the pods.
    pub close: bool,
}

/// What a tag stood for.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedPackage {
    /// The generation whose spec named the image.
    pub generation: i64,
    /// The image by its digest.
    #[schemars(schema_with = "schema::shown")]
    pub image: String,
    /// The revision that came of it.
    #[schemars(schema_with = "schema::label")]
    pub revision: String,
}

// === impl ModelStatus ===

impl ModelStatus {
    /// Say a reason. Its condition keeps the time of its last change if only words differ.
    pub fn say(&mut self, reason: Reason, message: &str, now: &Time, generation: Option<i64>) {
        let condition = Condition {
            type_: reason.condition().as_str().to_owned(),
            status: reason.status(),
            reason: reason.code().to_owned(),
            message: if message.is_empty() { reason.meaning() } else { message }.to_owned(),
            last_transition_time: now.clone(),
            observed_generation: generation,
        };
        condition.put(&mut self.conditions);
    }
}

// === impl Condition ===

impl Condition {
    /// Put it in the place of the one of its type, whose time it keeps if only words differ.
    pub fn put(mut self, conditions: &mut Vec<Self>) {
        match conditions.iter_mut().find(|old| old.type_ == self.type_) {
            Some(old) => {
                if old.status == self.status {
                    self.last_transition_time = old.last_transition_time.clone();
                }
                *old = self;
            }
            None => conditions.push(self),
        }
    }
}

// === impl Status ===

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Time {
        serde_json::from_value(text.into()).unwrap()
    }

    fn said(status: &ModelStatus) -> Vec<(String, Status, String)> {
        let since = |condition: &Condition| {
            serde_json::to_value(&condition.last_transition_time).unwrap().to_string()
        };
        let all = status.conditions.iter();
        all.map(|one| (one.reason.clone(), one.status, since(one))).collect()
    }

    #[test]
    fn a_condition_changes_its_time_only_with_its_status() {
        let mut status = ModelStatus::default();
        let [noon, one, two] = ["12", "13", "14"].map(|h| time(&format!("2026-01-01T{h}:00:00Z")));
        status.say(Reason::Serving, "", &noon, Some(1));
        status.say(Reason::Cold, "", &one, Some(1));
        status.say(Reason::Complete, "", &one, Some(1));
        let at = |h: &str| format!("\"2026-01-01T{h}:00:00Z\"");
        assert_eq!(
            said(&status),
            [
                ("Cold".to_owned(), Status::True, at("12")),
                ("Complete".to_owned(), Status::False, at("13")),
            ]
        );
        status.say(Reason::Starting, "wait", &two, Some(2));
        assert_eq!(said(&status)[0], ("Starting".to_owned(), Status::False, at("14")));
        assert_eq!(status.conditions[0].message, "wait");
        assert_eq!(status.conditions[0].observed_generation, Some(2));
    }
}
