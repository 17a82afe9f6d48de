//! One request of the MQTT front, computed: what `infer` does for REST.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use super::requests::{Answer, Call};
use crate::codec::Encoded;
use crate::infer;
use crate::repository::{Live, Repository};
use crate::respond::Failure;
use crate::trace;
use crate::turn;

/// Compute, in a task of its own: a panic is that request's error.
pub async fn answer(repository: Repository, call: Call, max_body: u64) -> Answer {
    let task = tokio::spawn(guarded(repository, call, max_body));
    // Aborting the outer task must end the compute as well.
    match AbortOnDropHandle::new(task).await {
        Ok(answer) => answer,
        Err(error) => Answer::failed(&Failure::Server(error.to_string())),
    }
}

async fn guarded(repository: Repository, call: Call, max_body: u64) -> Answer {
    let live = match acquire(&repository, &call).await {
        Ok(live) => live,
        Err(failure) => return Answer::failed(&failure),
    };
    let span = trace::inference(&live, "mqtt", |name| call.trace_context(name));
    match turn::tallied(&live, serve(&live, call, max_body)).instrument(span).await {
        Ok(Encoded { header, chunks }) => {
            Answer { payload: joined(chunks), header, status: 200, code: None }
        }
        Err(failure) => Answer::failed(&failure),
    }
}

/// The model. What the broker had handed over before the server began to drain is answered
/// still: it came to this node and to no other.
async fn acquire(repository: &Repository, call: &Call) -> Result<Arc<Live>, Failure> {
    let version = call.version.as_deref();
    match repository.acquire(&call.model, version).await {
        Err(Failure::Draining) => repository.peek(&call.model, version),
        other => other,
    }
}

async fn serve(live: &Arc<Live>, call: Call, max_body: u64) -> Result<Encoded, Failure> {
    live.check_tensors()?;
    let (limit, whose) = live.body_limit(max_body);
    if call.body.len() as u64 > limit {
        return Err(Failure::TooLarge { limit, whose });
    }
    infer::compute(live, call.header, call.body, call.timeout).await
}

/// A message is one piece.
fn joined(chunks: Vec<Bytes>) -> Bytes {
    let mut full = chunks.iter().filter(|chunk| !chunk.is_empty());
    match (full.next(), full.next()) {
        (None, _) => Bytes::new(),
        (Some(only), None) => only.clone(),
        (Some(_), Some(_)) => {
            let len = chunks.iter().map(Bytes::len).sum();
            let mut all = BytesMut::with_capacity(len);
            chunks.iter().for_each(|chunk| all.extend_from_slice(chunk));
            all.freeze()
        }
    }
}
