//! How far the job is, for people and logs. Knows no clock: the time is passed to it.

use std::time::{Duration, Instant};

/// Shortest time between two lines: a log of a long job stays readable, and printing costs
/// nothing beside the work.
const PERIOD: Duration = Duration::from_secs(1);

/// Counts what is done.
pub(crate) struct Progress {
    total: usize,
    done: usize,
    /// When something was said last.
    said: Instant,
}

// === impl Progress ===

impl Progress {
    pub(crate) fn new(total: usize, now: Instant) -> Self {
        Self { total, done: 0, said: now }
    }

    /// One more is done. What to say, if it is time to say something.
    pub(crate) fn step(&mut self, now: Instant) -> Option<String> {
        self.done += 1;
        if now.saturating_duration_since(self.said) < PERIOD {
            return None;
        }
        self.said = now;
        Some(format!("{} of {} files", self.done, self.total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_speaks_at_most_once_a_second() {
        let start = Instant::now();
        let mut progress = Progress::new(50, start);
        let steps = (0..50).filter_map(|step| progress.step(start + PERIOD / 10 * step));
        let said: Vec<_> = steps.collect();
        assert_eq!(said, ["11 of 50 files", "21 of 50 files", "31 of 50 files", "41 of 50 files"]);
    }
}
