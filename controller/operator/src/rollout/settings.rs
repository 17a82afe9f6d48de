//! What a rollout keeps to, in the units of the arithmetic.

use std::time::Duration;

use wick_api::{OnFailure, OnTooFewRequests, Promotion, Rollout};

/// What a rollout keeps to.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    steps: Vec<Step>,
    paused: bool,
    pub(super) deadline: Duration,
    pub(super) rolls_back: bool,
    /// A step that saw too few requests for the gates is taken all the same.
    pub(super) advance_unseen: bool,
    pub(super) min_requests: u64,
    /// Errors of all requests that the candidate may have more.
    pub(super) more_errors: f64,
    /// The candidate's 99th percentile, of the active revision's.
    pub(super) slower: f64,
}

#[derive(Debug, Clone, PartialEq)]
struct Step {
    weight: u8,
    hold: Duration,
    manual: bool,
}

// === impl Settings ===

impl Settings {
    pub fn of(rollout: &Rollout) -> Self {
        let steps = rollout.steps.iter().map(|step| Step {
            // The schema has these bounds too; a share outside of them would break every sum.
            weight: u8::try_from(step.weight.clamp(1, 99)).unwrap_or(1),
            hold: step.hold.get(),
            manual: step.promotion == Promotion::Manual,
        });
        let gates = &rollout.gates;
        Self {
            steps: steps.collect(),
            paused: rollout.paused,
            deadline: rollout.progress_deadline.get(),
            rolls_back: rollout.on_failure == OnFailure::Rollback,
            advance_unseen: gates.on_too_few_requests == OnTooFewRequests::Advance,
            min_requests: u64::try_from(gates.min_requests).unwrap_or(1),
            more_errors: gates.max_error_rate_increase.ratio(),
            slower: 1.0 + gates.max_latency_increase.ratio(),
        }
    }

    pub fn steps(&self) -> usize {
        self.steps.len()
    }

    /// The share of a step. A spec that has fewer steps now has the last one's.
    pub(super) fn weight(&self, step: usize) -> u8 {
        self.step(step).map_or(1, |step| step.weight)
    }

    pub(super) fn hold(&self, step: usize) -> Duration {
        self.step(step).map_or(Duration::ZERO, |step| step.hold)
    }

    pub(super) fn waits_for_people(&self, step: usize) -> bool {
        self.paused || self.is_manual(step)
    }

    /// Whether a step lasts until somebody promotes the candidate.
    pub fn is_manual(&self, step: usize) -> bool {
        self.step(step).is_some_and(|step| step.manual)
    }

    fn step(&self, step: usize) -> Option<&Step> {
        self.steps.get(step).or_else(|| self.steps.last())
    }
}
