//! What a cold start takes, by phases that follow each other, as the activator sees them. And how long
//! requests were held.
//!
//! ```text
//!  held ─ decide ─▶ pod made ─ schedule ─▶ has a node ─ sandbox ─▶ has an address
//!         ─ load ─▶ says that it is ready ─ infer ─▶ first answer
//! ```

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Bounds of the histograms in seconds, dense where cold starts are meant to be.
pub const BOUNDS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 15.0, 60.0];

/// The phases, in the order in which they follow.
pub const PHASES: [&str; 5] = ["decide", "schedule", "sandbox", "load", "infer"];

/// Times by bucket.
#[derive(Debug, Default)]
pub struct Histogram {
    counts: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Cold {
    /// Whether a start goes on, so that those who come later need no lock to know that none does.
    on: AtomicBool,
    start: Mutex<Option<Start>>,
    pub phases: [Histogram; PHASES.len()],
    pub held: Histogram,
}

/// One start.
#[derive(Debug, Clone, Copy)]
struct Start {
    since: Instant,
    /// When each phase but the last had ended.
    ends: [Option<Instant>; PHASES.len() - 1],
}

// === impl Cold ===

impl Cold {
    /// The first request waits.
    pub fn begin(&self, now: Instant) {
        let mut start = self.start.lock();
        if start.is_none() {
            *start = Some(Start { since: now, ends: [None; PHASES.len() - 1] });
            self.on.store(true, Ordering::Release);
        }
    }

    /// There is a pod.
    pub fn made(&self, now: Instant) {
        self.end(0, now);
    }

    /// A pod has a node.
    pub fn placed(&self, now: Instant) {
        self.end(1, now);
    }

    /// A pod has an address.
    pub fn address(&self, now: Instant) {
        self.end(2, now);
    }

    /// A pod is ready.
    pub fn ready(&self, now: Instant) {
        self.end(3, now);
    }

    /// A pod has answered: the start is over.
    pub fn answered(&self) {
        if !self.on.swap(false, Ordering::AcqRel) {
            return;
        }
        let Some(start) = self.start.lock().take() else { return };
        let mut before = start.since;
        let ends = start.ends.into_iter().chain([Some(Instant::now())]);
        for (phase, end) in self.phases.iter().zip(ends) {
            let end = end.unwrap_or(before);
            phase.record(end.saturating_duration_since(before));
            before = end;
        }
    }

    /// Nobody waits any more, and nothing was answered.
    pub fn give_up(&self) {
        if self.on.swap(false, Ordering::AcqRel) {
            self.start.lock().take();
        }
    }

    /// A phase has ended, and those before it have, too: what tells of them may be late.
    fn end(&self, phase: usize, now: Instant) {
        if self.on.load(Ordering::Acquire)
            && let Some(start) = self.start.lock().as_mut()
        {
            for end in start.ends.iter_mut().take(phase + 1) {
                end.get_or_insert(now);
            }
        }
    }
}

// === impl Histogram ===

impl Histogram {
    pub fn record(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let bucket = BOUNDS.iter().position(|&bound| seconds <= bound).unwrap_or(BOUNDS.len());
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// Counts of all buckets, each with all that was faster, and the sum in seconds.
    pub fn read(&self) -> ([u64; BOUNDS.len() + 1], f64) {
        let mut sum = 0;
        let counts = self.counts.each_ref().map(|count| {
            sum += count.load(Ordering::Relaxed);
            sum
        });
        (counts, self.micros.load(Ordering::Relaxed) as f64 / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_told_by_phase_and_only_once() {
        let (cold, start) = (Cold::default(), Instant::now());
        cold.answered();
        cold.begin(start);
        cold.begin(start + Duration::from_secs(9));
        cold.made(start + Duration::from_millis(20));
        cold.address(start + Duration::from_millis(90));
        cold.placed(start + Duration::from_millis(99));
        cold.ready(start + Duration::from_millis(90));
        cold.answered();
        cold.answered();
        let seen = cold.phases.each_ref().map(Histogram::read);
        assert_eq!(seen.each_ref().map(|(counts, _)| *counts.last().unwrap()), [1; 5]);
        let [decide, schedule, sandbox, load, _] = seen.map(|(_, sum)| sum);
        assert!((decide - 0.02).abs() < 1e-3 && (schedule - 0.07).abs() < 1e-3);
        assert_eq!((sandbox, load), (0.0, 0.0));
        cold.begin(start);
        cold.give_up();
        cold.answered();
        assert_eq!(cold.phases[0].read().0[BOUNDS.len()], 1);
    }
}
