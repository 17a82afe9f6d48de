//! The bodies of messages, version 1. Fields that are not known are passed over, so that a newer
//! side can say more; what an older side must not misread gets a new version.

use serde::{Deserialize, Serialize};
use wick_package::{Digest, PackageName};

use crate::model::Model;
use crate::names::{Generation, RolloutName};
use crate::time::Moment;

/// What a site is to have: all of its models. The generation is in the seal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    pub models: Vec<Model>,
    /// The rollout that it belongs to, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutName>,
}

/// What a site has. The generation in the seal is the one that it serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// Grows with every report, over restarts too: brokers reorder.
    pub sequence: u64,
    /// What it has accepted and is on its way to.
    pub wanted: Generation,
    pub state: State,
    /// A code, where the state has a reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How often it tried to get to `wanted`, and failed.
    #[serde(default)]
    pub attempts: u32,
    /// By the site's own clock.
    pub since: Moment,
    #[serde(default)]
    pub models: Vec<Served>,
    /// The last message that it refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
    /// The list of keys that it trusts.
    #[serde(default)]
    pub keys: u64,
}

/// A model that is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    pub name: String,
    pub digest: Digest,
    pub ready: bool,
}

/// Why a message was refused, and how many were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    pub code: String,
    pub text: String,
    pub count: u64,
}

/// Where a site is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It was told nothing yet.
    Empty,
    /// It serves what it was told.
    Converged,
    /// What it was serving before a restart is on its way back.
    Restoring,
    Fetching,
    Staging,
    Activating,
    /// It serves what it was told, and the version before finishes its requests.
    Draining,
    /// It failed, serves on what it had, and tries again later.
    Waiting,
    /// A newer site's state.
    #[serde(other)]
    Unknown,
}

/// Whether a site is connected. The broker sends it with `online: false` when the site is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    pub online: bool,
    /// Which connection of the site's: the end of an old one says nothing about a new one.
    pub session: u64,
}

/// How requests went since the last message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Telemetry {
    pub sequence: u64,
    pub seconds: u32,
    pub requests: u64,
    pub errors: u64,
    pub p99_us: u64,
}

// === impl Served ===

impl Served {
    pub fn new(name: &PackageName, digest: Digest, ready: bool) -> Self {
        Self { name: name.as_str().to_owned(), digest, ready }
    }
}

// === impl State ===

impl State {
    /// Whether the site serves what it has accepted.
    pub fn is_settled(self) -> bool {
        matches!(self, Self::Converged | Self::Draining)
    }
}
