//! A version of a model that answers requests: in memory, or cold until one comes.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use wick_engine::{InferRequest, Model, ModelKind};

use super::state::Condition;
use super::{Inner, rest};
use crate::body::Whose;
use crate::cores::Part;
use crate::gate::Gate;
use crate::metrics::{ModelMetrics, unix_millis};
use crate::respond::Failure;

/// A loaded model with its door and its counters.
pub struct Live {
    pub model: Model,
    pub name: String,
    pub version: String,
    /// Its name as that of who sets a limit.
    pub(super) whose: Whose,
    pub gate: Arc<Gate>,
    pub metrics: ModelMetrics,
    /// Its part of the processor. None for a model that may wait for the network: what it
    /// has in work does not compute.
    pub(crate) part: Option<Part>,
    pub(super) memory: Memory,
}

/// What is known of a model's place in memory.
pub(super) struct Memory {
    /// When the repository began: the zero of all times here.
    pub origin: Instant,
    pub home: Weak<Inner>,
    pub me: Weak<Live>,
    /// Set only under the gate's lock and only while nobody is inside, so that a request
    /// that was let in sees it, and keeps it from being set again.
    pub cold: AtomicBool,
    /// Held while the model comes or goes, so that requests share one load.
    pub turn: tokio::sync::Mutex<()>,
    /// Bytes that it took when it was loaded last.
    pub bytes: AtomicU64,
    /// Milliseconds after the repository's start of the last request, and of the last time
    /// that it was loaded or asked whether it works.
    pub used: AtomicU64,
    pub asked: AtomicU64,
    /// What the probe sends, if the package has a request for it.
    pub probe: Option<InferRequest>,
    pub fault: Mutex<Option<Fault>>,
    /// How often it was loaded again for its device, and when last, as above.
    pub reloads: AtomicU32,
    pub reloaded: AtomicU64,
    /// It is being probed or loaded again.
    pub asking: AtomicBool,
    /// It could not come back when it was asked for last.
    pub stuck: AtomicBool,
    /// Its device is lost, by what is known; and its graphs were taken off it, and are not on it again.
    pub lost: AtomicBool,
    pub away: AtomicBool,
}

/// Why the model did not answer its probe, or could not be loaded again.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    /// Milliseconds since 1970: a later success is the end of it.
    at: u64,
    pub code: &'static str,
    pub text: String,
}

/// How waking a model for a request ended.
pub(crate) enum Woken {
    Ready,
    Failed(Failure),
    /// The request's time was over first. The load goes on, for the next one.
    TooLate,
}

// === impl Live ===

impl Live {
    /// Most bytes of a request for it on a server that takes `server`, and whose limit that
    /// is.
    pub(crate) fn body_limit(&self, server: u64) -> (u64, Whose) {
        let package = self.model.limits().request;
        if package <= server {
            (package, self.whose.clone())
        } else {
            (server, Whose::Fixed("this server"))
        }
    }

    /// # Errors
    /// It answers HTTP and knows no tensors.
    pub(crate) fn check_tensors(&self) -> Result<(), Failure> {
        match self.model.kind() {
            ModelKind::Http => Err(Failure::NotTensors { model: self.name.clone() }),
            ModelKind::Passthrough | ModelKind::Handler | ModelKind::Command => Ok(()),
        }
    }

    /// A request has come.
    pub(crate) fn touch(&self, now: Instant) {
        self.memory.used.store(millis(self.memory.origin, now), Ordering::Relaxed);
    }

    /// It is not in memory. A request that was let in by the gate may believe it.
    pub(crate) fn is_cold(&self) -> bool {
        self.memory.cold.load(Ordering::Acquire)
    }

    /// Its graphs are not on their device, which is lost.
    pub(crate) fn is_away(&self) -> bool {
        self.memory.away.load(Ordering::Acquire)
    }

    /// Have it in memory, for a request that was let in. Whoever else wants that waits for
    /// the same load.
    pub(crate) async fn wake(&self, deadline: Instant) -> Woken {
        let (Some(home), Some(me)) = (self.memory.home.upgrade(), self.memory.me.upgrade()) else {
            return Woken::Failed(Failure::Draining);
        };
        // A task of its own: a client that leaves must not make the others begin again.
        let waking = tokio::spawn(async move { rest::wake(&home, &me).await });
        match tokio::time::timeout_at(deadline.into(), waking).await {
            Err(_) => Woken::TooLate,
            Ok(Ok(Ok(()))) => Woken::Ready,
            Ok(Ok(Err(failure))) => Woken::Failed(failure),
            Ok(Err(error)) => Woken::Failed(Failure::Server(error.to_string())),
        }
    }

    pub(super) fn condition(&self) -> Condition {
        Condition { cold: self.is_cold(), broken: self.fault().is_some() }
    }

    /// What is wrong with it, unless it has answered something since.
    pub(super) fn fault(&self) -> Option<Fault> {
        let fault = self.memory.fault.lock();
        // What succeeds while it is away had begun before.
        let counts = |fault: &&Fault| self.is_away() || fault.at >= self.metrics.last_success_ms();
        fault.as_ref().filter(counts).cloned()
    }

    pub(super) fn set_fault(&self, fault: Option<(&'static str, String)>) {
        let at = unix_millis();
        *self.memory.fault.lock() = fault.map(|(code, text)| Fault { at, code, text });
    }

    /// Time since it was loaded or probed.
    pub(super) fn unasked(&self, now: u64) -> Duration {
        Duration::from_millis(now.saturating_sub(self.memory.asked.load(Ordering::Relaxed)))
    }

    /// Time since it has answered something.
    pub(super) fn unproved(&self, now: u64) -> Duration {
        let succeeded = unix_millis().saturating_sub(self.metrics.last_success_ms());
        self.unasked(now).min(Duration::from_millis(succeeded))
    }
}

/// Milliseconds from `origin` to `now`.
pub(super) fn millis(origin: Instant, now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(origin).as_millis()).unwrap_or(u64::MAX)
}
