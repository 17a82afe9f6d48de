//! A request's turn at its model: admitted, and counted however it ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wick_engine::ModelKind;

use crate::admission::{Priority, Refusal};
use crate::gate::{Denied, Permit};
use crate::metrics::micros;
use crate::repository::{Live, Woken};
use crate::respond::{Failure, FailureClass};
use crate::trace;

/// Counts one request, also when it is dropped before its end.
pub struct Tally {
    live: Arc<Live>,
    start: Instant,
    done: bool,
}

/// Why a request was not let in.
enum Outside {
    Failed(Failure),
    /// The queue's own patience is over.
    Patience,
    /// The request's time is.
    Deadline,
}

/// Counts a request that waits, for as long as it does.
struct Pending<'a>(&'a Live);

/// Refuse a request whose model has no place left, before anything is read for it.
///
/// # Errors
/// [`Failure::QueueFull`].
pub fn knock(live: &Live) -> Result<(), Failure> {
    if live.gate.is_full() { Err(queue_full(live)) } else { Ok(()) }
}

/// Do a request's work, and count it, log it and mark its span however it ends.
///
/// # Errors
/// Those of the work.
pub async fn tallied<T>(
    live: &Arc<Live>,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let tally = Tally::new(live);
    let result = work.await;
    let duration_us = micros(tally.elapsed());
    match &result {
        Ok(_) => {
            tally.succeeded();
            tracing::debug!(status = 200, duration_us, "answered");
        }
        Err(failure) => {
            tally.failed(failure.class());
            failure.log(&live.name, duration_us);
            trace::failed(failure);
        }
    }
    result
}

/// Wait for a turn, and for the model to be in memory. `client` is the client's deadline if
/// it comes before the model's `own`.
///
/// # Errors
/// The queue is full, the model goes away or can't be loaded, or the time is over.
pub async fn admit(
    live: &Live,
    client: Option<Duration>,
    own: Duration,
    priority: Priority,
) -> Result<(Permit, Instant), Failure> {
    let arrived = Instant::now();
    let deadline = arrived + client.unwrap_or(own);
    live.touch(arrived);
    let entered = {
        let _pending = Pending::new(live);
        enter(live, arrived, deadline, priority).await
    };
    let waited = arrived.elapsed();
    live.metrics.queue_us.inc_by(micros(waited));
    let permit = entered.map_err(|outside| match (outside, client) {
        (Outside::Failed(failure), _) => failure,
        (Outside::Deadline, Some(client)) => Failure::ClientDeadline(client),
        (Outside::Deadline | Outside::Patience, _) => {
            Failure::WaitedTooLong { model: live.name.clone(), waited }
        }
    })?;
    if live.model.kind() != ModelKind::Passthrough {
        // Each request gets a fresh instance. Without one, the graph's runs are
        // counted instead: see `Metrics::take_graphs`.
        live.metrics.instances.inc();
        live.metrics.exec.inc();
    }
    Ok((permit, deadline))
}

/// Through the model's door, into memory, through the process's door. In this order: a model
/// that is being loaded must not take places of those that could compute.
async fn enter(
    live: &Live,
    arrived: Instant,
    deadline: Instant,
    priority: Priority,
) -> Result<Permit, Outside> {
    let patience = live.model.limits().queue_timeout.map(|most| arrived + most);
    let (until, late) = match patience {
        Some(until) if until < deadline => (until, Outside::Patience),
        _ => (deadline, Outside::Deadline),
    };
    let permit = match live.gate.enter(until, priority).await {
        Ok(permit) => permit,
        Err(Denied::Refused(Refusal::QueueFull)) => return Err(Outside::Failed(queue_full(live))),
        Err(Denied::Refused(Refusal::Draining)) => return Err(Outside::Failed(Failure::Draining)),
        Err(Denied::WaitedTooLong) => return Err(late),
    };
    if live.is_cold() {
        // Boxed: few requests find their model cold, and all would carry it.
        match Box::pin(live.wake(deadline)).await {
            Woken::Ready => {}
            Woken::Failed(failure) => return Err(Outside::Failed(failure)),
            Woken::TooLate => return Err(Outside::Deadline),
        }
    }
    if live.is_away() {
        let why = "its device is lost, and it is not on it again yet".to_owned();
        return Err(Outside::Failed(Failure::Asleep { model: live.name.clone(), why }));
    }
    match &live.part {
        None => Ok(permit),
        // Whoever has come so far waits for others to compute, and not in a queue.
        Some(part) => match part.enter(deadline).await {
            Some(core) => Ok(permit.with_core(core)),
            None => Err(Outside::Deadline),
        },
    }
}

fn queue_full(live: &Live) -> Failure {
    let retry_after = live.gate.retry_after(Instant::now());
    Failure::QueueFull { model: live.name.clone(), retry_after }
}

// === impl Tally ===

impl Tally {
    pub fn new(live: &Arc<Live>) -> Self {
        live.metrics.in_flight.inc();
        Self { live: Arc::clone(live), start: Instant::now(), done: false }
    }

    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    pub fn succeeded(mut self) {
        self.done = true;
        self.live.metrics.succeeded(self.start.elapsed());
    }

    pub fn failed(mut self, class: FailureClass) {
        self.done = true;
        self.live.metrics.failed(class);
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.live.metrics.in_flight.dec();
        if !self.done {
            self.live.metrics.failed(FailureClass::Canceled);
            tracing::debug!(model = self.live.name, "the client left");
        }
    }
}

// === impl Pending ===

impl<'a> Pending<'a> {
    fn new(live: &'a Live) -> Self {
        live.metrics.pending.inc();
        Self(live)
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.metrics.pending.dec();
    }
}
