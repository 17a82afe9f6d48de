//! Counts of what a graph has done.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// What a graph has done since it was loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct GraphStats {
    /// Requests that were answered.
    pub inferences: u64,
    /// Requests that failed; cancelled ones are not counted.
    pub failures: u64,
    /// Runs of the backend. With batching fewer than inferences.
    pub executions: u64,
    /// Rows of a run, and how many runs had them. Empty without batching.
    pub batch_sizes: BTreeMap<u64, u64>,
    /// Time in the backend, over all runs.
    pub compute_ns: u64,
    /// Time between the call and the start of its run, over all requests.
    pub queue_ns: u64,
}

/// The counters themselves.
#[derive(Default)]
pub(crate) struct Counters {
    inferences: AtomicU64,
    failures: AtomicU64,
    executions: AtomicU64,
    batch_sizes: Mutex<BTreeMap<u64, u64>>,
    compute_ns: AtomicU64,
    queue_ns: AtomicU64,
}

// === impl Counters ===

impl Counters {
    pub(crate) fn executed(&self, compute: Duration) {
        self.executions.fetch_add(1, Ordering::Relaxed);
        self.compute_ns.fetch_add(nanos(compute), Ordering::Relaxed);
    }

    pub(crate) fn batched(&self, rows: u64) {
        *self.batch_sizes.lock().entry(rows).or_default() += 1;
    }

    pub(crate) fn queued(&self, waited: Duration) {
        self.queue_ns.fetch_add(nanos(waited), Ordering::Relaxed);
    }

    pub(crate) fn answered(&self, good: bool) {
        let counter = if good { &self.inferences } else { &self.failures };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> GraphStats {
        GraphStats {
            inferences: self.inferences.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            executions: self.executions.load(Ordering::Relaxed),
            batch_sizes: self.batch_sizes.lock().clone(),
            compute_ns: self.compute_ns.load(Ordering::Relaxed),
            queue_ns: self.queue_ns.load(Ordering::Relaxed),
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
