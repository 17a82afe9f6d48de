//! What all connections of an activator share: its threads, its limits, and the word that it
//! ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections of clients. Those that come beyond wait to be accepted.
const MAX_CONNECTIONS: usize = 30_000;

/// Open files that are no connection of a client and none to a pod for it: ports of Models,
/// probes, the API server, the control port.
const OTHER_FILES: u64 = 256;

/// See the module.
pub struct Shared {
    /// Requests that wait, of all Models.
    pub held: AtomicU32,
    /// Cancelled when it ends.
    pub draining: CancellationToken,
    /// Counts first requests that wait for a Model.
    pub urgent: watch::Sender<u64>,
    pub places: Arc<Semaphore>,
    /// Connections of clients.
    pub connections: TaskTracker,
    threads: Box<[Handle]>,
    next: AtomicUsize,
}

/// Threads of one task queue each: a request never changes its thread, which would cost as much
/// as all the rest of it.
pub struct Threads {
    stop: CancellationToken,
    handles: Box<[Handle]>,
    joins: Mutex<Vec<JoinHandle<()>>>,
}

/// Raise the limit of open files as far as this process may, which many containers begin with a
/// thousand of, and say how many connections fit: each may need one to a pod.
fn most_connections() -> usize {
    let limit = getrlimit(Resource::Nofile);
    // Where it may not be raised, the present one counts.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let fit = files.saturating_sub(OTHER_FILES) / 2;
    usize::try_from(fit).unwrap_or(MAX_CONNECTIONS).clamp(1, MAX_CONNECTIONS)
}

// === impl Shared ===

impl Shared {
    pub fn new(threads: &Threads) -> Self {
        Self {
            held: AtomicU32::new(0),
            draining: CancellationToken::new(),
            urgent: watch::Sender::new(0),
            places: Arc::new(Semaphore::new(most_connections())),
            connections: TaskTracker::new(),
            threads: threads.handles.clone(),
            next: AtomicUsize::new(0),
        }
    }

    pub fn threads(&self) -> usize {
        self.threads.len()
    }

    /// The thread for the next connection.
    pub fn thread(&self) -> (usize, &Handle) {
        let index = self.next.fetch_add(1, Ordering::Relaxed) % self.threads.len();
        (index, &self.threads[index])
    }
}

// === impl Threads ===

impl Threads {
    /// # Errors
    /// The system has no threads left.
    pub fn start(count: usize) -> std::io::Result<Self> {
        let stop = CancellationToken::new();
        let (mut handles, mut joins) = (Vec::new(), Vec::new());
        for index in 0..count.max(1) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            handles.push(runtime.handle().clone());
            let stop = stop.clone();
            let named = std::thread::Builder::new().name(format!("activator-{index}"));
            joins.push(named.spawn(move || runtime.block_on(stop.cancelled()))?);
        }
        Ok(Self { stop, handles: handles.into(), joins: Mutex::new(joins) })
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.cancel();
        for join in self.joins.get_mut().drain(..) {
            // A thread that panicked has said so.
            drop(join.join());
        }
    }
}
