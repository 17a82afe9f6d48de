//! How requests of all models together went, for who judges a whole site: how many were answered,
//! how many were not by a fault on this side, and how long answers took.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// Buckets between a power of two and the next: a percentile is exact within an eighth.
const STEPS: u32 = 4;

/// Powers of two of microseconds that are told apart. The last ends after nine hours.
const POWERS: u32 = 35;

const BUCKETS: usize = (POWERS * STEPS) as usize;

/// What Prometheus sees: powers of two of microseconds from 64 to two minutes, each with a half-way step, or
/// there would be four times as many series.
const SHOWN: std::ops::Range<usize> = (6 * STEPS) as usize..(27 * STEPS) as usize;
const SHOWN_STEP: usize = 2;

const SECONDS: &str = "wick_request_seconds";
const FAULTS: &str = "wick_request_faults";

/// What requests add to.
#[derive(Debug)]
pub struct Counts {
    errors: AtomicU64,
    /// Microseconds of all answers.
    sum: AtomicU64,
    took: [AtomicU64; BUCKETS],
}

/// Counts at one moment, or between two.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Answered, and not answered by a fault on this side: by the model, or for want of room.
    pub requests: u64,
    pub errors: u64,
    sum_us: u64,
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
        let took = std::array::from_fn(|_| AtomicU64::new(0));
        Self { errors: AtomicU64::new(0), sum: AtomicU64::new(0), took }
    }
}

impl Counts {
    pub fn succeeded(&self, us: u64) {
        self.took[bucket(us)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(us, Ordering::Relaxed);
    }

    pub fn failed(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    pub fn read(&self) -> Traffic {
        let took: Vec<_> = self.took.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let errors = self.errors.load(Ordering::Relaxed);
        let sum_us = self.sum.load(Ordering::Relaxed);
        Traffic { requests: took.iter().sum::<u64>() + errors, errors, sum_us, took }
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
            sum_us: self.sum_us.saturating_sub(earlier.sum_us),
            took: took.collect(),
        }
    }

    /// Both together.
    pub fn add(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.errors = self.errors.saturating_add(other.errors);
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
        self.took.resize(BUCKETS, 0);
        for (sum, more) in self.took.iter_mut().zip(&other.took) {
            *sum = sum.saturating_add(*more);
        }
    }

    /// A histogram and a counter in Prometheus' text format.
    pub fn write(&self, text: &mut String) {
        let mut line = |name: &str, value: &dyn std::fmt::Display| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{name} {value}");
        };
        line("# HELP", &format!("{SECONDS} Time of answers of all models, in seconds"));
        line("# TYPE", &format!("{SECONDS} histogram"));
        let answered: u64 = self.took.iter().sum();
        let mut below = self.took.iter().take(SHOWN.start).sum::<u64>();
        for buckets in SHOWN.step_by(SHOWN_STEP) {
            let these = self.took.iter().skip(buckets).take(SHOWN_STEP);
            below += these.sum::<u64>();
            let seconds = end(buckets + SHOWN_STEP - 1) as f64 / 1e6;
            line(&format!("{SECONDS}_bucket{{le=\"{seconds}\"}}"), &below);
        }
        line(&format!("{SECONDS}_bucket{{le=\"+Inf\"}}"), &answered);
        line(&format!("{SECONDS}_sum"), &(self.sum_us as f64 / 1e6));
        line(&format!("{SECONDS}_count"), &answered);
        line(
            "# HELP",
            &format!("{FAULTS} Requests that were not answered by a fault on this side"),
        );
        line("# TYPE", &format!("{FAULTS} counter"));
        line(FAULTS, &self.errors);
    }

    /// What [`Self::write`] has written, among other metrics. Times are as exact as what is shown.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut traffic = Self { took: vec![0; BUCKETS], ..Self::default() };
        let mut below = 0;
        for line in text.lines() {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            if name == FAULTS {
                traffic.errors = value.parse().unwrap_or_default();
            }
            let Some(rest) = name.strip_prefix(SECONDS) else { continue };
            if rest == "_sum" {
                // A negative or absurd number becomes the nearest that can be.
                traffic.sum_us = (value.parse().unwrap_or(0.0_f64) * 1e6).round() as u64;
            }
            let le = rest.strip_prefix("_bucket{le=\"").and_then(|rest| rest.strip_suffix("\"}"));
            let le: Option<f64> = le.and_then(|le| le.parse().ok());
            let (Some(le), Ok(count)) = (le, value.parse::<u64>()) else { continue };
            let at = bucket((le * 1e6).round() as u64).saturating_sub(1);
            traffic.took[if le.is_finite() { at } else { BUCKETS - 1 }] +=
                count.saturating_sub(below);
            below = below.max(count);
        }
        traffic.requests = below.saturating_add(traffic.errors);
        traffic
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
    fn what_is_written_is_read_again() {
        let counts = Counts::default();
        for us in [10, 900, 70_000, 70_000, 2_000_000, 1 << 33] {
            counts.succeeded(us);
        }
        counts.failed();
        let mut text = "wick_request_seconds_of_others 3\n".to_owned();
        counts.read().write(&mut text);
        assert!(text.contains("\nwick_request_seconds_bucket{le=\"0.098304\"} 4\n"), "{text}");
        assert!(text.contains("\nwick_request_seconds_count 6\n"), "{text}");
        let read = Traffic::parse(&text);
        let mut again = String::new();
        read.write(&mut again);
        assert_eq!(text.split_once('\n').unwrap().1, again);
        assert_eq!((read.requests, read.errors), (7, 1));
        // Half of it twice is all of it.
        let mut twice = Traffic::default();
        twice.add(&read);
        twice.add(&read);
        assert_eq!(twice.since(&read), read);
        assert_eq!(Traffic::parse("x\nwick_request_seconds_bucket{le=\"a\"} b").requests, 0);
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
