//! How many pods a Model has, and when.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::text::{Percent, Span};

/// Most pods of one Model. The scale of a fleet of nodes, not of a mistake in a number.
const MAX_REPLICAS: i32 = 1000;

/// How many pods there are, and when.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Scale {
    /// Fewest pods. 0: none while nobody calls.
    #[serde(default)]
    #[schemars(range(min = 0, max = MAX_REPLICAS))]
    pub min_replicas: i32,
    /// Most pods.
    #[serde(default = "max_replicas")]
    #[schemars(range(min = 1, max = MAX_REPLICAS))]
    pub max_replicas: i32,
    /// Requests that one pod should have in work and waiting, on average.
    #[serde(default = "target_concurrency")]
    #[schemars(range(min = 1, max = 10_000))]
    pub target_concurrency: i32,
    /// How long nobody must have called before the last pod goes.
    #[serde(default = "idle_timeout")]
    pub idle_timeout: Span,
    /// The time over which requests are averaged.
    #[serde(default = "stable_window")]
    pub stable_window: Span,
    /// The shorter time over which a sudden load is seen.
    #[serde(default = "panic_window")]
    pub panic_window: Span,
    /// The load, of what the ready pods should have, from which the shorter time counts alone.
    #[serde(default = "panic_threshold")]
    pub panic_threshold: Percent,
    /// How long fewer pods must have been enough before any goes.
    #[serde(default = "scale_down_delay")]
    pub scale_down_delay: Span,
    /// How many times the ready pods there may be after one step up.
    #[serde(default = "max_step_up")]
    #[schemars(range(min = 2, max = 100))]
    pub max_step_up: i32,
    /// What happens to requests while no pod is ready.
    #[serde(default)]
    pub hold: Hold,
    /// Leaves the number of pods from one on to an autoscaler of Kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub horizontal_pod_autoscaler: Option<HorizontalPodAutoscaler>,
}

/// What happens to requests while no pod is ready.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// Most requests that wait; one more is answered 429.
    #[serde(default = "max_requests")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max_requests: i32,
    /// How long a request waits; then it is answered 503.
    #[serde(default = "hold_timeout")]
    pub timeout: Span,
}

/// An autoscaler of Kubernetes for the pods from one on.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct HorizontalPodAutoscaler {
    /// CPU that pods should use, in percent of what they request.
    #[serde(default = "target_cpu")]
    #[schemars(range(min = 1, max = 1000))]
    pub target_cpu_utilization: i32,
}

fn max_replicas() -> i32 {
    10
}

fn target_concurrency() -> i32 {
    8
}

fn idle_timeout() -> Span {
    Span::seconds(60)
}

fn stable_window() -> Span {
    Span::seconds(60)
}

fn panic_window() -> Span {
    Span::seconds(6)
}

fn panic_threshold() -> Percent {
    Percent::whole(200)
}

fn scale_down_delay() -> Span {
    Span::seconds(30)
}

fn max_step_up() -> i32 {
    10
}

fn max_requests() -> i32 {
    1000
}

fn hold_timeout() -> Span {
    Span::seconds(60)
}

fn target_cpu() -> i32 {
    70
}

// === impl Scale and Hold ===

/// What is not written, as the schema has it too.
impl Default for Scale {
    fn default() -> Self {
        Self {
            min_replicas: 0,
            max_replicas: max_replicas(),
            target_concurrency: target_concurrency(),
            idle_timeout: idle_timeout(),
            stable_window: stable_window(),
            panic_window: panic_window(),
            panic_threshold: panic_threshold(),
            scale_down_delay: scale_down_delay(),
            max_step_up: max_step_up(),
            hold: Hold::default(),
            horizontal_pod_autoscaler: None,
        }
    }
}

impl Default for Hold {
    fn default() -> Self {
        Self { max_requests: max_requests(), timeout: hold_timeout() }
    }
}
