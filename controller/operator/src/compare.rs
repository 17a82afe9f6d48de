//! How two revisions did lately, from counters that only grow: what they were at the beginning
//! of the window is taken from what they are now.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::activator::latency::Latency;
use crate::revision::RevisionName;
use crate::rollout::{Comparison, Stats};
use crate::time::Moment;

/// Samples of one window. More would only say more exactly when it began.
const SAMPLES: usize = 60;

/// What a revision has answered since somebody began to count.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counters {
    pub requests: u64,
    pub errors: u64,
    /// How long they took.
    pub latency: Latency,
}

/// Counters of the revisions of one Model over the last while.
#[derive(Debug, Default)]
pub struct Samples {
    taken: VecDeque<(Moment, BTreeMap<RevisionName, Counters>)>,
}

// === impl Samples ===

impl Samples {
    /// What is counted now. Kept once for each part of the window, so that its size is bounded.
    pub fn add(
        &mut self,
        now: Moment,
        window: Duration,
        counted: BTreeMap<RevisionName, Counters>,
    ) {
        let apart = window / u32::try_from(SAMPLES).unwrap_or(u32::MAX);
        // The newest is always there; the one before it only if it is far enough from the next.
        if let [.., (before, _), (last, _)] = self.taken.make_contiguous()
            && last.since(*before) < apart
        {
            self.taken.pop_back();
        }
        self.taken.push_back((now, counted));
        while self.taken.len() > 2 && now.since(self.taken[1].0) >= window {
            self.taken.pop_front();
        }
        while self.taken.len() > SAMPLES + 2 {
            self.taken.pop_front();
        }
    }

    /// How both did within the window.
    pub fn compare(
        &self,
        active: Option<&RevisionName>,
        candidate: Option<&RevisionName>,
    ) -> Comparison {
        let stats = |name: Option<&RevisionName>| name.map(|name| self.stats(name));
        Comparison {
            active: stats(active).unwrap_or_default(),
            candidate: stats(candidate).unwrap_or_default(),
        }
    }

    fn stats(&self, name: &RevisionName) -> Stats {
        let Some((_, last)) = self.taken.back() else { return Stats::default() };
        let Some(last) = last.get(name) else { return Stats::default() };
        let none = Counters::default();
        let first = self.taken.front().and_then(|(_, first)| first.get(name)).unwrap_or(&none);
        // An activator that starts anew counts from zero: then all that it says is new.
        let first = if first.requests > last.requests { &none } else { first };
        let latency = last.latency.since(&first.latency);
        Stats {
            requests: last.requests - first.requests,
            errors: last.errors.saturating_sub(first.errors),
            p99: (latency.count() > 0).then(|| latency.quantile(0.99)).flatten(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    fn name(name: &str) -> RevisionName {
        RevisionName::known(name)
    }

    fn counted(requests: u64, errors: u64, latency: &[u64]) -> BTreeMap<RevisionName, Counters> {
        let mut sum = 0;
        let buckets = latency.iter().map(|count| {
            sum += count;
            sum
        });
        let latency = Latency { buckets: buckets.collect() };
        let counters = Counters { requests, errors, latency };
        [(name("m-a"), counters)].into()
    }

    fn stats(samples: &Samples) -> (u64, u64, Option<u128>) {
        let stats = samples.compare(Some(&name("m-a")), Some(&name("m-b")));
        assert_eq!(stats.candidate, Stats::default());
        (stats.active.requests, stats.active.errors, stats.active.p99.map(|p99| p99.as_micros()))
    }

    #[test]
    fn only_what_came_within_the_window_counts() {
        let mut samples = Samples::default();
        let at = |second: u64| Moment::from_millis(second * 1000);
        samples.add(at(0), WINDOW, counted(1000, 500, &[0, 0, 0, 1000]));
        samples.add(at(1), WINDOW, counted(1100, 500, &[99, 1, 0, 1000]));
        assert_eq!(stats(&samples), (100, 0, Some(91)));
        for second in 2..=61 {
            samples.add(
                at(second),
                WINDOW,
                counted(1100 + second, 502, &[99, 1 + second, 0, 1000]),
            );
        }
        // From second 1 on.
        assert_eq!(stats(&samples), (61, 2, Some(109)));
        assert!(samples.taken.len() <= SAMPLES + 2);
    }

    #[test]
    fn counters_that_start_anew_lose_nothing() {
        let mut samples = Samples::default();
        samples.add(Moment::from_millis(0), WINDOW, counted(1000, 1, &[1000, 0, 0, 0]));
        samples.add(Moment::from_millis(2000), WINDOW, counted(10, 2, &[0, 0, 10, 0]));
        assert_eq!(stats(&samples), (10, 2, Some(131)));
    }

    #[test]
    fn a_year_of_samples_takes_no_more_room_than_a_window() {
        let mut samples = Samples::default();
        for tick in 0..100_000_u64 {
            samples.add(Moment::from_millis(tick * 100), WINDOW, counted(tick, 0, &[tick]));
        }
        assert!(samples.taken.len() <= SAMPLES + 2, "{}", samples.taken.len());
        let (requests, ..) = stats(&samples);
        assert!((590..=620).contains(&requests), "{requests}");
    }
}
