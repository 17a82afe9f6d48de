//! Numbers of the last while, in a fixed number of buckets: their average and their maximum.

use std::time::Duration;

use crate::time::Moment;

/// Buckets of a window: a second each for a minute, and a window of an hour costs no more.
const BUCKETS: usize = 60;

/// The numbers of the last while.
#[derive(Debug)]
pub struct Window {
    /// Milliseconds of a bucket.
    width: u64,
    buckets: [Bucket; BUCKETS],
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Which of all buckets since 1970 it is.
    number: u64,
    count: u32,
    sum: f64,
    max: f64,
}

/// A bucket of a time that no window reaches.
const EMPTY: Bucket = Bucket { number: u64::MAX, count: 0, sum: 0.0, max: 0.0 };

// === impl Window ===

impl Window {
    pub fn new(length: Duration) -> Self {
        let millis = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        Self { width: (millis / BUCKETS as u64).max(1), buckets: [EMPTY; BUCKETS] }
    }

    pub fn add(&mut self, now: Moment, value: f64) {
        let number = now.millis() / self.width;
        let bucket = &mut self.buckets[(number % BUCKETS as u64) as usize];
        if bucket.number != number {
            *bucket = Bucket { number, ..EMPTY };
        }
        bucket.count = bucket.count.saturating_add(1);
        bucket.sum += value;
        bucket.max = bucket.max.max(value);
    }

    /// The average, each bucket that has anything counting as much as any other.
    pub fn average(&self, now: Moment) -> Option<f64> {
        let (mut sum, mut count) = (0.0, 0.0);
        for bucket in self.live(now) {
            sum += bucket.sum / f64::from(bucket.count);
            count += 1.0;
        }
        (count > 0.0).then(|| sum / count)
    }

    pub fn max(&self, now: Moment) -> Option<f64> {
        self.live(now).map(|bucket| bucket.max).reduce(f64::max)
    }

    fn live(&self, now: Moment) -> impl Iterator<Item = &Bucket> {
        let newest = now.millis() / self.width;
        let oldest = newest.saturating_sub(BUCKETS as u64 - 1);
        self.buckets.iter().filter(move |bucket| (oldest..=newest).contains(&bucket.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Moment {
        Moment::from_millis(second * 1000)
    }

    #[test]
    fn what_is_older_than_the_window_does_not_count() {
        let mut window = Window::new(Duration::from_secs(60));
        assert_eq!(window.average(at(100)), None);
        window.add(at(100), 10.0);
        window.add(at(130), 20.0);
        assert_eq!(window.average(at(131)), Some(15.0));
        assert_eq!(window.max(at(131)), Some(20.0));
        assert_eq!(window.average(at(170)), Some(20.0));
        assert_eq!(window.average(at(190)), None);
    }

    #[test]
    fn many_numbers_in_one_moment_count_as_one() {
        let mut window = Window::new(Duration::from_secs(60));
        (0..100).for_each(|_| window.add(at(1), 100.0));
        window.add(at(2), 0.0);
        assert_eq!(window.average(at(2)), Some(50.0));
    }

    #[test]
    fn a_window_of_nothing_still_has_the_present() {
        let mut window = Window::new(Duration::ZERO);
        window.add(at(1), 3.0);
        assert_eq!(window.average(at(1)), Some(3.0));
        assert_eq!(window.average(at(2)), None);
    }
}
