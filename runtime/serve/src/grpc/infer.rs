//! One inference over gRPC: convert, call, convert back.
//!
//! A client that cancels drops this future, wherever it is: its place in the queue, its
//! memory and its compute go with it.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tracing::Instrument as _;
use wick_engine::ModelKind;

use super::convert;
use super::proto::{ModelInferRequest, ModelInferResponse};
use crate::body::Held;
use crate::call::{self, Asks};
use crate::codec::{Decoded, Identity};
use crate::metrics::micros;
use crate::repository::Live;
use crate::respond::Failure;
use crate::routes::App;
use crate::turn::Tally;

/// Answer a request. `held` is what its bytes take, `left` what is left of the client's time.
pub(super) async fn answer(
    app: &App,
    message: ModelInferRequest,
    held: Held,
    left: Option<Duration>,
) -> Result<ModelInferResponse, Failure> {
    let version = super::service::version(&message.model_version);
    let live = app.repository.acquire(&message.model_name, version).await?;
    let (model, version) = (live.name.as_str(), live.version.as_str());
    let span = tracing::debug_span!("infer", model, version, id = message.id);
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
    let Decoded { request, wants, timeout } = convert::request(message)?;
    convert::wanted_form_is_possible(live.model.outputs(), &request.outputs, wants.binary)?;
    let asks = Asks { timeout: timeout.into_iter().chain(left).min() };
    let id = request.id.clone();
    let response = call::call(live, request, asks).await?;
    let who = Identity { model: &live.name, version: &live.version, id: id.as_deref() };
    Ok(convert::response(who, response, wants.binary)?)
}
