//! One request of the MQTT front, computed: what `infer` does for REST.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tracing::Instrument as _;
use wick_engine::ModelKind;

use super::requests::{Answer, Call};
use crate::admission::Priority;
use crate::call::{self, Asks};
use crate::codec::{self, Encoded};
use crate::infer;
use crate::metrics::micros;
use crate::repository::{Live, Repository};
use crate::respond::Failure;
use crate::turn::Tally;

/// Compute, in a task of its own: a panic is that request's error.
pub async fn answer(repository: Repository, call: Call, max_body: u64) -> Answer {
    let task = tokio::spawn(guarded(repository, call, max_body));
    // Aborting the outer task must end the compute as well.
    let _abort = AbortOnDrop(task.abort_handle());
    match task.await {
        Ok(answer) => answer,
        Err(error) => Answer::failed(&Failure::Server(error.to_string())),
    }
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn guarded(repository: Repository, call: Call, max_body: u64) -> Answer {
    let live = match acquire(&repository, &call).await {
        Ok(live) => live,
        Err(failure) => return Answer::failed(&failure),
    };
    let span = tracing::debug_span!(
        "infer",
        model = live.name,
        version = live.version,
        traceparent = call.traceparent,
        id = tracing::field::Empty
    );
    answer_live(&live, call, max_body).instrument(span).await
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

async fn answer_live(live: &Arc<Live>, call: Call, max_body: u64) -> Answer {
    let tally = Tally::new(live);
    let result = serve(live, call, max_body).await;
    let duration_us = micros(tally.elapsed());
    match result {
        Ok(encoded) => {
            tally.succeeded();
            tracing::debug!(status = 200, duration_us, "answered");
            let payload = joined(encoded.chunks);
            Answer { payload, header: encoded.header, status: 200, code: None }
        }
        Err(failure) => {
            tally.failed(failure.class());
            failure.log(&live.name, duration_us);
            Answer::failed(&failure)
        }
    }
}

async fn serve(live: &Arc<Live>, call: Call, max_body: u64) -> Result<Encoded, Failure> {
    if live.model.kind() == ModelKind::Http {
        return Err(Failure::NotTensors { model: live.name.clone() });
    }
    let limit = live.model.limits().request.min(max_body);
    if call.body.len() as u64 > limit {
        let whose = format!("model `{}`", live.name);
        return Err(Failure::TooLarge { limit, whose });
    }
    let decoded = infer::decode(live, call.header, call.body).await?;
    let codec::Decoded { request, wants, timeout, priority } = decoded;
    tracing::Span::current().record("id", request.id.as_deref());
    codec::wanted_json_is_possible(live.model.outputs(), &request.outputs, &wants)?;
    let timeout = timeout.into_iter().chain(call.timeout).min();
    let asks = Asks { timeout, priority: Priority::asked(priority) };
    let id = request.id.clone();
    let response = call::call(live, request, asks).await?;
    infer::encode(live, id, response, wants).await
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
