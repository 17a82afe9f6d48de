//! One inference of a decoded request, whatever protocol brought it: wait for a turn,
//! compute within the deadline.
//!
//! A caller that leaves drops this future, wherever it is: its place in the queue and its
//! compute go with it.

use std::time::{Duration, Instant};

use tracing::Instrument as _;
use wick_engine::{InferError, InferRequest, InferResponse};

use crate::admission::Priority;
use crate::codec::Decoded;
use crate::metrics::micros;
use crate::repository::Live;
use crate::respond::Failure;
use crate::turn::admit;

/// How much longer than its deadline an inference may take to stop by itself.
const DEADLINE_GRACE: Duration = Duration::from_millis(500);

/// What a client asks of its request, beside tensors.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Asks {
    /// Time until the answer is of no use any more. The package's own limit holds in any
    /// case.
    pub timeout: Option<Duration>,
    /// How important it is beside others that wait for the same model.
    pub priority: Priority,
}

impl Asks {
    /// What a request asks. `timeout` is what the protocol that brought it says of the
    /// client's time: the earlier one holds.
    pub fn of(decoded: &Decoded, timeout: Option<Duration>) -> Self {
        Self {
            timeout: decoded.timeout.into_iter().chain(timeout).min(),
            priority: Priority::asked(decoded.priority),
        }
    }
}

/// Wait for a turn and run.
///
/// # Errors
/// The queue is full, the time is over, or the model fails.
pub(crate) async fn call(
    live: &Live,
    request: InferRequest,
    asks: Asks,
) -> Result<InferResponse, Failure> {
    let own = live.model.manifest().limits.timeout;
    let client = asks.timeout.filter(|&client| client < own);
    let queue = tracing::debug_span!("queue");
    let admitted = admit(live, client, own, asks.priority).instrument(queue);
    let (_permit, deadline) = admitted.await?;
    let started = Instant::now();
    let infer = live.model.infer(request, deadline).instrument(tracing::debug_span!("compute"));
    // The model keeps the deadline itself; this is for one that does not.
    let result = tokio::time::timeout_at((deadline + DEADLINE_GRACE).into(), infer).await;
    live.metrics.compute_us.inc_by(micros(started.elapsed()));
    match (result, client) {
        (Ok(Ok(response)), _) => Ok(response),
        (Err(_) | Ok(Err(InferError::Deadline(_))), Some(client)) => {
            Err(Failure::ClientDeadline(client))
        }
        (Err(_), None) => Err(InferError::Deadline(own).into()),
        (Ok(Err(error)), _) => Err(error.into()),
    }
}
