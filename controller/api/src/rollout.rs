//! How traffic moves to a new revision of a Model, and back.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::text::{Percent, Span};

/// Steps of one rollout.
const MAX_STEPS: usize = 10;

/// How traffic moves to a new revision, and back.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// The shares of traffic that a new revision gets, one after the other, before it gets all.
    /// Without any it gets all as soon as it is ready.
    #[serde(default = "steps")]
    #[schemars(length(max = MAX_STEPS), extend("x-kubernetes-list-type" = "atomic"))]
    pub steps: Vec<Step>,
    /// What a new revision must keep to.
    #[serde(default)]
    pub gates: Gates,
    /// What happens to a revision that doesn't.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// How long a new revision may take to become ready, and a step to see enough requests.
    #[serde(default = "progress_deadline")]
    pub progress_deadline: Span,
    /// Stays at the present step. Gates are watched all the same.
    #[serde(default)]
    pub paused: bool,
    /// Old revisions that are kept, to go back to.
    #[serde(default = "revision_history_limit")]
    #[schemars(range(min = 0, max = 20))]
    pub revision_history_limit: i32,
}

/// A share of traffic, and how long it lasts.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Requests of a hundred that the new revision gets.
    #[schemars(range(min = 1, max = 99))]
    pub weight: i32,
    /// How long the step lasts at least.
    #[serde(default = "hold")]
    pub hold: Span,
    /// Manual: the step lasts until somebody promotes the revision.
    #[serde(default)]
    pub promotion: Promotion,
}

/// Who ends a step.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Promotion {
    #[default]
    Automatic,
    Manual,
}

/// What a new revision must keep to, beside the one that it replaces.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Gates {
    /// Requests that both revisions must have had before they are compared.
    #[serde(default = "min_requests")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub min_requests: i32,
    /// The time over which they are compared.
    #[serde(default = "window")]
    pub window: Span,
    /// Errors in percent of requests that the new revision may have more.
    #[serde(default = "max_error_rate_increase")]
    pub max_error_rate_increase: Percent,
    /// How much slower it may be at the 99th percentile.
    #[serde(default = "max_latency_increase")]
    pub max_latency_increase: Percent,
    /// What happens when a step's deadline comes before enough requests have.
    #[serde(default)]
    pub on_too_few_requests: OnTooFewRequests,
}

/// What happens when there was too little to compare.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnTooFewRequests {
    #[default]
    Advance,
    Rollback,
}

/// What happens to a revision that fails. Pause: it gets no requests, and is kept until somebody
/// promotes it or aborts the rollout.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnFailure {
    #[default]
    Rollback,
    Pause,
}

fn steps() -> Vec<Step> {
    let step = |weight| Step { weight, hold: hold(), promotion: Promotion::Automatic };
    vec![step(10), step(50)]
}

fn hold() -> Span {
    Span::seconds(60)
}

fn progress_deadline() -> Span {
    Span::seconds(600)
}

fn revision_history_limit() -> i32 {
    3
}

fn min_requests() -> i32 {
    50
}

fn window() -> Span {
    Span::seconds(60)
}

fn max_error_rate_increase() -> Percent {
    Percent::whole(1)
}

fn max_latency_increase() -> Percent {
    Percent::whole(50)
}

// === impl Rollout and Gates ===

/// What is not written, as the schema has it too.
impl Default for Rollout {
    fn default() -> Self {
        Self {
            steps: steps(),
            gates: Gates::default(),
            on_failure: OnFailure::default(),
            progress_deadline: progress_deadline(),
            paused: false,
            revision_history_limit: revision_history_limit(),
        }
    }
}

impl Default for Gates {
    fn default() -> Self {
        Self {
            min_requests: min_requests(),
            window: window(),
            max_error_rate_increase: max_error_rate_increase(),
            max_latency_increase: max_latency_increase(),
            on_too_few_requests: OnTooFewRequests::default(),
        }
    }
}
