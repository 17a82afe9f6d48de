//! Latencies in a histogram of fixed size: exact to one part in 128, however many there
//! are. Pure.

use std::time::Duration;

use serde::Serialize;

/// Steps within each power of two: their width is the error, below 0.8 %.
const STEPS: u64 = 1 << STEP_BITS;
const STEP_BITS: u32 = 7;

/// Steps for all that 64 bits of nanoseconds hold.
const BUCKETS: usize = ((64 - STEP_BITS as usize) + 1) << STEP_BITS;

/// How often each latency was seen.
#[derive(Clone)]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    total: u128,
    min: u64,
    max: u64,
}

/// Latencies in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Latency {
    pub min: f64,
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

// === impl Histogram ===

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: vec![0; BUCKETS], count: 0, total: 0, min: u64::MAX, max: 0 }
    }
}

impl Histogram {
    pub fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(nanos)] += 1;
        self.count += 1;
        self.total += u128::from(nanos);
        self.min = self.min.min(nanos);
        self.max = self.max.max(nanos);
    }

    pub fn add(&mut self, other: &Self) {
        for (own, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *own += more;
        }
        self.count += other.count;
        self.total += other.total;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    /// All zeros if nothing was recorded.
    pub fn summary(&self) -> Latency {
        let ms = |nanos: u64| nanos as f64 / 1e6;
        Latency {
            min: if self.count == 0 { 0.0 } else { ms(self.min) },
            mean: self.total as f64 / self.count.max(1) as f64 / 1e6,
            p50: ms(self.quantile(0.5)),
            p90: ms(self.quantile(0.9)),
            p99: ms(self.quantile(0.99)),
            max: ms(self.max),
        }
    }

    /// The smallest latency that so large a part of all stays within, in nanoseconds.
    fn quantile(&self, part: f64) -> u64 {
        let rank = ((self.count as f64 * part).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return middle(index).clamp(self.min, self.max);
            }
        }
        self.max
    }
}

fn bucket(nanos: u64) -> usize {
    if nanos < STEPS {
        return nanos as usize;
    }
    let shift = nanos.ilog2() - STEP_BITS;
    let step = (nanos >> shift) - STEPS;
    ((u64::from(shift) + 1) * STEPS + step) as usize
}

/// The value in the middle of a bucket.
fn middle(index: usize) -> u64 {
    let index = index as u64;
    if index < STEPS {
        return index;
    }
    let shift = index / STEPS - 1;
    let low = (STEPS + index % STEPS) << shift;
    low + (1 << shift) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_falls_into_a_bucket_close_to_it() {
        for power in 0..64 {
            for offset in [0, 1, 77] {
                let value = (1_u64 << power).saturating_add(offset);
                let near = middle(bucket(value));
                assert!(near.abs_diff(value) as f64 <= value as f64 / 128.0, "{value} {near}");
            }
        }
        assert!(bucket(u64::MAX) < BUCKETS);
    }

    #[test]
    fn percentiles_are_those_of_the_values() {
        let mut first = Histogram::default();
        let mut second = Histogram::default();
        for ms in 1..=100 {
            let half = if ms % 2 == 0 { &mut first } else { &mut second };
            half.record(Duration::from_millis(ms));
        }
        first.add(&second);
        let latency = first.summary();
        let near = |got: f64, want: f64| (got - want).abs() <= want / 100.0;
        assert_eq!((latency.min, latency.max, first.count()), (1.0, 100.0, 100));
        assert!(near(latency.mean, 50.5), "{latency:?}");
        assert!(near(latency.p50, 50.0) && near(latency.p90, 90.0), "{latency:?}");
        assert!(near(latency.p99, 99.0), "{latency:?}");
    }

    #[test]
    fn nothing_recorded_is_all_zeros() {
        let latency = Histogram::default().summary();
        assert_eq!((latency.min, latency.p99, latency.max), (0.0, 0.0, 0.0));
    }
}
