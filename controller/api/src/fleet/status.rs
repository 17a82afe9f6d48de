//! What the hub says of a `Site` and of a `Rollout`, through the status subresource.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::status::Condition;

/// Conditions of one object: `Ready` is ours, and others may add theirs.
const MAX_CONDITIONS: usize = 16;

/// What is said of a site.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SiteStatus {
    /// The generation of the object that all of this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`: the site is connected and serves what it is to have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MAX_CONDITIONS),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
    /// Whether it is connected to the broker.
    #[serde(default)]
    pub online: bool,
    /// The plan's generation that it is to have.
    #[serde(default)]
    pub generation: i64,
    /// The plan's generation that has the traffic there.
    #[serde(default)]
    pub serving: i64,
}

/// What is said of a rollout.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// The generation of the object that all of this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`: the rollout is finished.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MAX_CONDITIONS),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
    /// Where it is. Since it has one, what it changes is what it has begun with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<RolloutPhase>,
    /// The wave, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wave: Option<i32>,
    /// How many waves there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waves: Option<i32>,
    /// How many sites are where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sites: Option<SiteCounts>,
}

/// Where a rollout is.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub enum RolloutPhase {
    Running,
    Paused,
    Aborted,
    RolledBack,
    Finished,
}

/// How many sites of a rollout are where.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SiteCounts {
    /// All that it has taken.
    pub total: i32,
    /// There.
    pub done: i32,
    /// On the way.
    pub moving: i32,
    /// Tried, and failed.
    pub failed: i32,
    /// Offline for too long: nobody waits for them, and they catch up.
    pub skipped: i32,
}
