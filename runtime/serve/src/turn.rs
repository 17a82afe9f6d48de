//! A request's turn at its model: admitted, and counted however it ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wick_engine::ModelKind;

use crate::admission::Refusal;
use crate::gate::{Denied, Permit};
use crate::metrics::micros;
use crate::repository::Live;
use crate::respond::{Failure, FailureClass};

/// Counts one request, also when it is dropped before its end.
pub struct Tally {
    live: Arc<Live>,
    start: Instant,
    done: bool,
}

/// Counts a request that waits, for as long as it does.
struct Pending<'a>(&'a Live);

/// Wait for a turn. `client` is the client's deadline if it comes before the
/// model's `own`.
///
/// # Errors
/// The queue is full, the model goes away, or the time is over.
pub async fn admit(
    live: &Live,
    client: Option<Duration>,
    own: Duration,
) -> Result<(Permit, Instant), Failure> {
    let arrived = Instant::now();
    let deadline = arrived + client.unwrap_or(own);
    let entered = {
        let _pending = Pending::new(live);
        live.gate.enter(deadline).await
    };
    let waited = arrived.elapsed();
    live.metrics.queue_us.inc_by(micros(waited));
    let model = || live.name.clone();
    let permit = entered.map_err(|denied| match (denied, client) {
        (Denied::Refused(Refusal::QueueFull), _) => Failure::QueueFull { model: model() },
        (Denied::Refused(Refusal::Draining), _) => Failure::Draining,
        (Denied::WaitedTooLong, Some(client)) => Failure::ClientDeadline(client),
        (Denied::WaitedTooLong, None) => Failure::WaitedTooLong { model: model(), waited },
    })?;
    if live.model.kind() != ModelKind::Passthrough {
        // Each request gets a fresh instance. Without one, the graph's runs are
        // counted instead: see `Metrics::take_graphs`.
        live.metrics.instances.inc();
        live.metrics.exec.inc();
    }
    Ok((permit, deadline))
}

// === impl Tally ===

impl Tally {
    pub fn new(live: &Arc<Live>) -> Self {
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
