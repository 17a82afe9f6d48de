//! How requests of all models together went, for who judges a whole site: how many were answered,
//! how many were not by a fault on this side, and how long answers took.

use std::sync::atomic::{AtomicU64, Ordering};

/// Buckets between a power of two and the next: a percentile is exact within an eighth.
const STEPS: u32 = 4;

/// Powers of two of microseconds that are told apart. The last ends after nine hours.
const POWERS: u32 = 35;

const BUCKETS: usize = (POWERS * STEPS) as usize;

/// What requests add to.
#[derive(Debug)]
pub struct Counts {
    errors: AtomicU64,
    took: [AtomicU64; BUCKETS],
}

/// Counts at one moment, or between two.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Answered, and not answered by a fault on this side: by the model, or for want of room.
    pub requests: u64,
    pub errors: u64,
    took: Vec<u64>,
}

fn bucket(us: u64) -> usize {
    let us = us.max(1);
    let power = us.ilog2();
    // The two bits after the first.
    let step = if power >= 2 { (us >> (power - 2)) & 3 } else { (us << (2 - power)) & 3 };
    let bucket = power as usize * STEPS as usize + step as usize;
    bucket.min(BUCKETS - 1)
}

/// The end of a bucket in microseconds.
fn end(bucket: usize) -> u64 {
    let (power, step) = (bucket / STEPS as usize, bucket % STEPS as usize);
    ((STEPS as u64 + step as u64 + 1) << power) / STEPS as u64
}

// === impl Counts ===

impl Default for Counts {
    fn default() -> Self {
        Self { errors: AtomicU64::new(0), took: std::array::from_fn(|_| AtomicU64::new(0)) }
    }
}

impl Counts {
    pub fn succeeded(&self, us: u64) {
        self.took[bucket(us)].fetch_add(1, Ordering::Relaxed);
    }

    pub fn failed(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    pub fn read(&self) -> Traffic {
        let took: Vec<_> = self.took.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let errors = self.errors.load(Ordering::Relaxed);
        Traffic { requests: took.iter().sum::<u64>() + errors, errors, took }
    }
}

// === impl Traffic ===

impl Traffic {
    /// What came after an earlier reading.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let was = earlier.took.iter().chain(std::iter::repeat(&0));
        let took = self.took.iter().zip(was).map(|(now, was)| now.saturating_sub(*was));
        Self {
            requests: self.requests.saturating_sub(earlier.requests),
            errors: self.errors.saturating_sub(earlier.errors),
            took: took.collect(),
        }
    }

    /// The time within which 99 of 100 answers came, in microseconds; 0 where there were none.
    pub fn p99_us(&self) -> u64 {
        let answered: u64 = self.took.iter().sum();
        let mut left = answered - answered / 100;
        if answered == 0 {
            return 0;
        }
        for (at, count) in self.took.iter().enumerate() {
            left = left.saturating_sub(*count);
            if left == 0 {
                return end(at);
            }
        }
        end(BUCKETS - 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_time_is_in_its_bucket_and_not_past_a_quarter_of_it(us in 1..1_u64 << 34) {
            let end = end(bucket(us));
            prop_assert!(us <= end.max(1), "{us} {end}");
            prop_assert!(end <= us + us / 4 + 1, "{us} {end}");
        }
    }

    #[test]
    fn the_percentile_is_of_what_came_between() {
        let counts = Counts::default();
        assert_eq!(counts.read().p99_us(), 0);
        counts.succeeded(1_000_000);
        let before = counts.read();
        (0..199).for_each(|_| counts.succeeded(1000));
        counts.succeeded(500_000);
        counts.failed();
        let between = counts.read().since(&before);
        assert_eq!((between.requests, between.errors), (201, 1));
        assert!((1000..1300).contains(&between.p99_us()), "{}", between.p99_us());
    }
}
