//! One inference over gRPC: convert, call, convert back.
//!
//! A client that cancels drops this future, wherever it is: its place in the queue, its
//! memory and its compute go with it.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tonic::Request;
use tonic::metadata::AsciiMetadataValue;
use tracing::Instrument as _;
use wick_engine::ModelKind;

use super::convert;
use super::proto::{ModelInferRequest, ModelInferResponse};
use crate::admission::Priority;
use crate::auth::Grant;
use crate::body::Held;
use crate::call::{self, Asks};
use crate::codec::{Decoded, Identity};
use crate::metrics::micros;
use crate::repository::Live;
use crate::respond::Failure;
use crate::routes::App;
use crate::trace;
use crate::turn::Tally;

/// The metadata that names the caller's span, by W3C Trace Context.
const TRACE_CONTEXT: [&str; 2] = ["traceparent", "tracestate"];

/// Who calls, as far as an inference must know.
#[derive(Clone)]
pub(super) struct Caller {
    grant: Grant,
    /// The caller's span, if it sends one.
    trace: Option<[AsciiMetadataValue; 2]>,
}

/// Answer a request. `held` is what its bytes take, `left` what is left of the client's time.
pub(super) async fn answer(
    app: &App,
    caller: &Caller,
    message: ModelInferRequest,
    held: Held,
    left: Option<Duration>,
) -> Result<ModelInferResponse, Failure> {
    caller.grant.check(&message.model_name)?;
    let version = super::service::version(&message.model_version);
    let live = app.repository.acquire(&message.model_name, version).await?;
    let span = trace::inference(&live, "grpc", |name| caller.header(name));
    if !message.id.is_empty() {
        span.record("id", &message.id);
    }
    answer_live(app, &live, message, held, left).instrument(span).await
}

async fn answer_live(
    app: &App,
    live: &Arc<Live>,
    message: ModelInferRequest,
    held: Held,
    left: Option<Duration>,
) -> Result<ModelInferResponse, Failure> {
    let tally = Tally::new(live);
    let result = serve(app, live, message, held, left).await;
    let duration_us = micros(tally.elapsed());
    match &result {
        Ok(_) => {
            tally.succeeded();
            tracing::debug!(duration_us, "answered");
        }
        Err(failure) => {
            tally.failed(failure.class());
            failure.log(&live.name, duration_us);
            trace::failed(failure);
        }
    }
    result
}

async fn serve(
    app: &App,
    live: &Arc<Live>,
    message: ModelInferRequest,
    // Until the answer is made, since the inputs are slices of the message.
    mut held: Held,
    left: Option<Duration>,
) -> Result<ModelInferResponse, Failure> {
    if live.model.kind() == ModelKind::Http {
        return Err(Failure::NotTensors { model: live.name.clone() });
    }
    let (max, whose) = app.body_limit(live);
    let size = message.encoded_len() as u64;
    if size > max {
        return Err(Failure::TooLarge { limit: max, whose });
    }
    // A message that came compressed takes more than its bytes on the way did.
    if !held.grow(size.saturating_sub(held.bytes())) {
        return Err(Failure::OutOfBodyMemory);
    }
    let Decoded { request, wants, timeout, priority } = convert::request(message)?;
    convert::wanted_form_is_possible(live.model.outputs(), &request.outputs, wants.binary)?;
    let timeout = timeout.into_iter().chain(left).min();
    let asks = Asks { timeout, priority: Priority::asked(priority) };
    let id = request.id.clone();
    let response = call::call(live, request, asks).await?;
    let who = Identity { model: &live.name, version: &live.version, id: id.as_deref() };
    Ok(convert::response(who, response, wants.binary)?)
}

// === impl Caller ===

impl Caller {
    pub fn of<T>(request: &Request<T>) -> Self {
        let [parent, state] = TRACE_CONTEXT.map(|name| request.metadata().get(name).cloned());
        let none = || AsciiMetadataValue::from_static("");
        let trace = parent.map(|parent| [parent, state.unwrap_or_else(none)]);
        Self { grant: Grant::of(request.extensions()), trace }
    }

    /// One of the headers of W3C Trace Context.
    fn header(&self, name: &str) -> Option<&str> {
        let at = TRACE_CONTEXT.iter().position(|known| *known == name)?;
        self.trace.as_ref()?[at].to_str().ok()
    }
}
