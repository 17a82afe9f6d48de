//! Whether a wave may be followed by the next.

use crate::plan::{Gate, Mark, Stage, Traffic};

/// Fewest requests that an error rate is believed of.
const ENOUGH: u64 = 20;

/// What the sites of a wave came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tally {
    pub(super) done: usize,
    pub(super) failed: usize,
    pub(super) skipped: usize,
    pub(super) open: usize,
}

// === impl Tally ===

impl Tally {
    pub(super) fn of<'a>(marks: impl Iterator<Item = &'a Mark>) -> Self {
        let mut tally = Self::default();
        for mark in marks {
            match mark.stage {
                Stage::Done => tally.done += 1,
                Stage::Failed(_) => tally.failed += 1,
                Stage::Skipped => tally.skipped += 1,
                Stage::Planned | Stage::Waits(_) | Stage::Moving(_) => tally.open += 1,
                Stage::Undone => {}
            }
        }
        tally
    }

    /// Why the gate can't open any more, whatever those do that are still on their way.
    pub(super) fn fails(&self, gate: &Gate) -> Option<String> {
        let total = self.done + self.failed + self.open;
        let best = self.done + self.open;
        (best * 100 < total * usize::from(gate.success)).then(|| {
            let (failed, success) = (self.failed, gate.success);
            format!("{failed} of {total} sites failed, and {success} % must succeed")
        })
    }
}

/// Why the requests of the sites that moved don't pass the gate.
pub(super) fn judge(gate: &Gate, traffic: &[Traffic]) -> Option<String> {
    let requests: u64 = traffic.iter().fold(0, |sum, t| sum.saturating_add(t.requests));
    let errors: u64 = traffic.iter().fold(0, |sum, t| sum.saturating_add(t.errors));
    if requests < ENOUGH {
        return None;
    }
    if let Some(most) = gate.errors {
        let rate = u128::from(errors) * 10_000 / u128::from(requests);
        if rate > u128::from(most) {
            return Some(format!("{rate} of 10,000 requests failed, and {most} may"));
        }
    }
    let most = gate.p99_us?;
    let mut all: Vec<_> = traffic.iter().filter(|t| t.requests > 0).map(|t| t.p99_us).collect();
    all.sort_unstable();
    let median = all.get(all.len() / 2).copied().unwrap_or(0);
    (median > most).then(|| format!("the 99th percentile is {median} us, and may be {most}"))
}
