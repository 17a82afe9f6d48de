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

use super::convert;
use super::proto::{ModelInferRequest, ModelInferResponse};
use crate::auth::Grant;
use crate::body::Held;
use crate::call::{self, Asks};
use crate::codec::{Decoded, Identity};
use crate::repository::Live;
use crate::respond::Failure;
use crate::routes::App;
use crate::trace;
use crate::turn;

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
    let work = serve(app, &live, message, held, left);
    turn::tallied(&live, work).instrument(span).await
}

async fn serve(
    app: &App,
    live: &Arc<Live>,
    message: ModelInferRequest,
    // Until the answer is made, since the inputs are slices of the message.
    mut held: Held,
    left: Option<Duration>,
) -> Result<ModelInferResponse, Failure> {
    live.check_tensors()?;
    let (max, whose) = live.body_limit(app.max_body);
    let size = message.encoded_len() as u64;
    if size > max {
        return Err(Failure::TooLarge { limit: max, whose });
    }
    // A message that came compressed takes more than its bytes on the way did.
    if !held.grow(size.saturating_sub(held.bytes())) {
        return Err(Failure::OutOfBodyMemory);
    }
    let decoded = convert::request(message)?;
    let asks = Asks::of(&decoded, left);
    let Decoded { request, wants, .. } = decoded;
    convert::wanted_form_is_possible(live.model.outputs(), &request.outputs, wants.binary)?;
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
