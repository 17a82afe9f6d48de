//! How long answers took, in buckets that are dense enough for a percentile within a tenth. The
//! same bounds everywhere, so that counts of several activators can be added.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The bound of the first bucket in seconds. A proxied answer takes longer.
const FIRST: f64 = 1e-4;

/// From a bound to the next. The middle of a bucket is within a tenth of all that is in it.
const FACTOR: f64 = 1.2;

/// Bounded buckets; the last ends at two minutes. One more takes what is slower.
const BOUNDED: usize = 78;

/// Counts that requests add to.
#[derive(Debug)]
pub struct Counts([AtomicU64; BOUNDED + 1]);

/// Counts at one moment, each with all that was faster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    pub buckets: Vec<u64>,
}

/// The bound of a bucket; none for the last, or one that there is not.
pub fn bound(bucket: usize) -> Option<Duration> {
    let exponent = i32::try_from(bucket).ok()?;
    (bucket < BOUNDED).then(|| Duration::from_secs_f64(FIRST * FACTOR.powi(exponent)))
}

// === impl Counts ===

impl Default for Counts {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Counts {
    pub fn record(&self, took: Duration) {
        let steps = (took.as_secs_f64() / FIRST).ln() / FACTOR.ln();
        // Casts of floats saturate, at 0 too.
        let bucket = (steps.ceil() as usize).min(BOUNDED);
        self.0[bucket].fetch_add(1, Ordering::Relaxed);
    }

    pub fn read(&self) -> Latency {
        let mut sum = 0;
        let add = |count: &AtomicU64| {
            sum += count.load(Ordering::Relaxed);
            sum
        };
        Latency { buckets: self.0.iter().map(add).collect() }
    }
}

// === impl Latency ===

impl Latency {
    pub fn count(&self) -> u64 {
        self.buckets.last().copied().unwrap_or(0)
    }

    /// What came after an earlier reading of the same counts.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let before = |index: usize| earlier.buckets.get(index).copied().unwrap_or(0);
        let counts = self.buckets.iter().enumerate();
        Self { buckets: counts.map(|(i, count)| count.saturating_sub(before(i))).collect() }
    }

    /// With what another activator counted.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let (long, short) = match self.buckets.len() >= other.buckets.len() {
            true => (self, other),
            false => (other, self),
        };
        let other = |index: usize| short.buckets.get(index).copied().unwrap_or(0);
        let counts = long.buckets.iter().enumerate();
        Self { buckets: counts.map(|(i, count)| count + other(i)).collect() }
    }

    /// The time within which the part `part` of all was answered; none without any.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let count = self.count();
        let rank = ((count as f64 * part).ceil() as u64).clamp(1, count.max(1));
        let bucket = self.buckets.iter().position(|&faster| faster >= rank)?;
        let upper = bound(bucket).or_else(|| bound(BOUNDED - 1))?;
        // The middle of a bucket on the scale that its bounds are on.
        Some(upper.div_f64(FACTOR.sqrt()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn readings_can_be_subtracted_and_added() {
        let counts = Counts::default();
        assert_eq!(counts.read().quantile(0.99), None);
        counts.record(Duration::from_millis(1));
        let first = counts.read();
        counts.record(Duration::from_secs(1));
        let later = counts.read().since(&first);
        assert_eq!(later.count(), 1);
        assert!(later.quantile(0.5) > Some(Duration::from_millis(900)));
        assert_eq!(first.plus(&later), counts.read());
        assert_eq!(Latency::default().plus(&first), first);
        counts.record(Duration::from_secs(1000));
        assert_eq!(counts.read().count(), 3);
    }

    proptest! {
        #[test]
        fn a_percentile_is_right_within_a_tenth(
            millis in prop::collection::vec(0.2..90_000.0_f64, 1..200),
            part in 0.0..=1.0_f64,
        ) {
            let counts = Counts::default();
            let mut sorted = millis.clone();
            sorted.sort_by(f64::total_cmp);
            for one in &millis {
                counts.record(Duration::from_secs_f64(one / 1e3));
            }
            let rank = ((millis.len() as f64 * part).ceil() as usize).clamp(1, millis.len());
            let right = sorted[rank - 1];
            let got = counts.read().quantile(part).unwrap().as_secs_f64() * 1e3;
            prop_assert!((got / right - 1.0).abs() < 0.1, "{got} for {right}");
        }
    }
}
