//! What a cold start takes, as far as the activator sees it: until a pod has an address, until it
//! is ready, until it has answered. And how long requests were held.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Bounds of the histograms in seconds, dense where cold starts are meant to be.
pub const BOUNDS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 15.0, 60.0];

/// The phases, in the order in which they follow.
pub const PHASES: [&str; 3] = ["address", "ready", "answer"];

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
    address: Option<Instant>,
    ready: Option<Instant>,
}

// === impl Cold ===

impl Cold {
    /// The first request waits.
    pub fn begin(&self, now: Instant) {
        let mut start = self.start.lock();
        if start.is_none() {
            *start = Some(Start { since: now, address: None, ready: None });
            self.on.store(true, Ordering::Release);
        }
    }

    /// There is a pod with an address.
    pub fn address(&self, now: Instant) {
        self.note(|start| _ = start.address.get_or_insert(now));
    }

    /// A pod is ready.
    pub fn ready(&self, now: Instant) {
        self.note(|start| {
            start.address.get_or_insert(now);
            start.ready.get_or_insert(now);
        });
    }

    /// A pod has answered: the start is over.
    pub fn answered(&self) {
        if !self.on.swap(false, Ordering::AcqRel) {
            return;
        }
        let Some(start) = self.start.lock().take() else { return };
        let now = Instant::now();
        let ready = start.ready.unwrap_or(now);
        let address = start.address.unwrap_or(ready);
        let times = [address - start.since, ready - address, now - ready];
        for (phase, time) in self.phases.iter().zip(times) {
            phase.record(time);
        }
    }

    /// Nobody waits any more, and nothing was answered.
    pub fn give_up(&self) {
        if self.on.swap(false, Ordering::AcqRel) {
            self.start.lock().take();
        }
    }

    fn note(&self, note: impl FnOnce(&mut Start)) {
        if self.on.load(Ordering::Acquire)
            && let Some(start) = self.start.lock().as_mut()
        {
            note(start);
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
        cold.address(start + Duration::from_millis(90));
        cold.ready(start + Duration::from_millis(90));
        cold.answered();
        cold.answered();
        let seen = cold.phases.each_ref().map(Histogram::read);
        assert_eq!(seen.each_ref().map(|(counts, _)| *counts.last().unwrap()), [1, 1, 1]);
        assert!((seen[0].1 - 0.09).abs() < 1e-3 && seen[1].1 == 0.0);
        cold.begin(start);
        cold.give_up();
        cold.answered();
        assert_eq!(cold.phases[0].read().0[BOUNDS.len()], 1);
    }
}
