//! Whether a candidate is worse than the revision that it would replace.

use std::time::Duration;

use super::{Reason, Settings};

/// A difference in time that no caller feels. Below it the percentile of a model of microseconds
/// is noise.
const UNFELT: Duration = Duration::from_millis(2);

/// How a revision did within the gates' window.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Stats {
    pub requests: u64,
    pub errors: u64,
    /// The 99th percentile. None where it is not known.
    pub p99: Option<Duration>,
}

/// Both revisions, side by side.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Comparison {
    pub active: Stats,
    pub candidate: Stats,
}

// === impl Settings ===

impl Settings {
    /// Whether there was enough to see, or why the candidate fails.
    pub(super) fn judge(&self, compared: &Comparison) -> Result<bool, Reason> {
        let Comparison { active, candidate } = compared;
        if candidate.requests < self.min_requests {
            return Ok(false);
        }
        // An active revision that was hardly called is taken for one without errors.
        let known = active.requests >= self.min_requests;
        let usual = if known { active.error_rate() } else { 0.0 };
        if candidate.error_rate() > usual + self.more_errors {
            return Err(Reason::TooManyErrors);
        }
        if let (true, Some(usual), Some(now)) = (known, active.p99, candidate.p99)
            && now > usual.mul_f64(self.slower) + UNFELT
        {
            return Err(Reason::TooSlow);
        }
        Ok(known)
    }
}

// === impl Stats ===

impl Stats {
    fn error_rate(&self) -> f64 {
        if self.requests == 0 { 0.0 } else { self.errors as f64 / self.requests as f64 }
    }
}
