//! Which graphs compute faster than a thread is woken, told by how long their runs took.
//! It knows nothing of threads.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

/// A run that takes no longer may keep a thread that serves requests: about as long as
/// waking another thread takes on an idle machine, and less than reading a JSON body may.
pub(crate) const QUICK: Duration = Duration::from_micros(200);

/// Quick runs in a row before the next is trusted to be. One that is not begins anew.
const STREAK: u32 = 16;

/// What is known of one graph. Threads tell and ask without a lock; one that is a run
/// behind does no harm.
#[derive(Debug, Default)]
pub(crate) struct Quick {
    streak: AtomicU32,
    /// Bytes of the largest inputs that were quick: larger ones take longer.
    largest: AtomicUsize,
}

// === impl Quick ===

impl Quick {
    /// Whether inputs of so many bytes can be expected to be quick.
    pub fn expects(&self, bytes: usize) -> bool {
        self.streak.load(Ordering::Relaxed) >= STREAK
            && bytes <= self.largest.load(Ordering::Relaxed)
    }

    /// A run with inputs of so many bytes took so long.
    pub fn took(&self, bytes: usize, time: Duration) {
        if time > QUICK {
            self.streak.store(0, Ordering::Relaxed);
            self.largest.store(0, Ordering::Relaxed);
            return;
        }
        // Written only when it changes, since all threads read it.
        if self.largest.load(Ordering::Relaxed) < bytes {
            self.largest.store(bytes, Ordering::Relaxed);
        }
        if self.streak.load(Ordering::Relaxed) < STREAK {
            self.streak.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Duration = Duration::from_micros(20);
    const SLOW: Duration = Duration::from_millis(20);

    /// Runs of so many bytes, and whether inputs of 100 bytes are expected to be quick then.
    #[track_caller]
    fn check(runs: &[(u32, usize, Duration)], want: bool) {
        let quick = Quick::default();
        for &(times, bytes, time) in runs {
            (0..times).for_each(|_| quick.took(bytes, time));
        }
        assert_eq!(quick.expects(100), want, "after {runs:?}");
    }

    #[test]
    fn a_graph_is_trusted_after_a_row_of_quick_runs() {
        check(&[], false);
        check(&[(STREAK - 1, 100, FAST)], false);
        check(&[(STREAK, 100, FAST)], true);
        check(&[(1000, 100, QUICK)], true);
        check(&[(1000, 100, SLOW)], false);
    }

    #[test]
    fn one_slow_run_takes_the_trust_away() {
        check(&[(STREAK, 100, FAST), (1, 100, SLOW)], false);
        check(&[(STREAK, 100, FAST), (1, 100, SLOW), (STREAK, 100, FAST)], true);
    }

    #[test]
    fn larger_inputs_than_were_seen_are_not_trusted() {
        check(&[(STREAK, 99, FAST)], false);
        check(&[(STREAK, 99, FAST), (1, 200, FAST)], true);
        check(&[(1, 200, FAST), (1, 100, SLOW), (STREAK, 99, FAST)], false);
    }
}
