//! One inference over REST: read, decode, call, encode.
//!
//! A client that leaves drops this future, wherever it is: its place in the queue,
//! its memory and its compute go with it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use tracing::Instrument as _;
use wick_engine::InferResponse;

use crate::body::{self, BodyLimits, Pieces};
use crate::call::{self, Asks};
use crate::codec::{self, DecodeError, Decoded, Encoded, Identity, Wants};
use crate::compression::{self, Coding};
use crate::repository::Live;
use crate::respond::Failure;
use crate::routes::App;
use crate::trace;
use crate::turn;

/// Bodies and outputs up to this many bytes are decoded and encoded where they are:
/// JSON of this size takes less than a millisecond. Larger ones would hold up other
/// requests of the thread.
const INLINE_JSON: usize = 256 << 10;

const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// A client's deadline in milliseconds, for requests without JSON.
const TIMEOUT_MS: HeaderName = HeaderName::from_static("wick-timeout-ms");

const BINARY: HeaderValue = HeaderValue::from_static("application/octet-stream");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Answer a request for a model.
pub(crate) async fn answer(
    app: &App,
    model: &str,
    version: Option<&str>,
    headers: &HeaderMap,
    body: Body,
) -> Response {
    let live = match app.repository.acquire(model, version).await {
        Ok(live) => live,
        Err(failure) => {
            body::discard(body).await;
            return failure.into_response();
        }
    };
    let span = trace::inference_over_http(&live, headers);
    answer_live(app, &live, headers, body).instrument(span).await
}

async fn answer_live(app: &App, live: &Arc<Live>, headers: &HeaderMap, body: Body) -> Response {
    let response = match turn::tallied(live, serve(app, live, headers, body)).await {
        Ok(encoded) => respond(encoded),
        Err(failure) => return failure.into_response(),
    };
    match compression::wanted(headers) {
        None => response,
        // Boxed, so that requests that don't ask for it don't carry it.
        Some(coding) => Box::pin(compression::compressed(response, coding)).await,
    }
}

async fn serve(
    app: &App,
    live: &Arc<Live>,
    headers: &HeaderMap,
    body: Body,
) -> Result<Encoded, Failure> {
    let head = match head(live, headers) {
        Ok(head) => head,
        Err(failure) => {
            body::discard(body).await;
            return Err(failure);
        }
    };
    if let Err(failure) = turn::knock(live) {
        body::refuse(headers, body).await;
        return Err(failure);
    }
    let (max, whose) = live.body_limit(app.max_body);
    let limits =
        BodyLimits { max, whose, timeout: app.body_timeout, align_at: head.length.unwrap_or(0) };
    // Held until the answer is made, since the inputs are slices of the body.
    let (body, _held) = compression::read(head.coding, body, &limits, &app.memory).await?;
    compute(live, head.length, body, head.timeout).await
}

/// From a body to that of the answer. `header` is the length of its JSON if binary data
/// follows it, `timeout` what the protocol says of the client's time.
///
/// # Errors
/// The body is no request, or see [`call::call`].
pub(crate) async fn compute(
    live: &Arc<Live>,
    header: Option<usize>,
    body: Bytes,
    timeout: Option<Duration>,
) -> Result<Encoded, Failure> {
    let decoded = decode(live, header, body).await?;
    let asks = Asks::of(&decoded, timeout);
    let Decoded { request, wants, .. } = decoded;
    tracing::Span::current().record("id", request.id.as_deref());
    codec::wanted_json_is_possible(live.model.outputs(), &request.outputs, &wants)?;
    let id = request.id.clone();
    let response = call::call(live, request, asks).await?;
    encode(live, id, response, wants).await
}

/// What the headers say of the body.
struct Head {
    coding: Option<Coding>,
    length: Option<usize>,
    timeout: Option<Duration>,
}

fn head(live: &Live, headers: &HeaderMap) -> Result<Head, Failure> {
    live.check_tensors()?;
    let coding = compression::of_request(headers)?;
    let mut lengths = headers.get_all(HEADER_LENGTH).iter();
    let length = match (lengths.next(), lengths.next()) {
        (None, _) => None,
        (Some(length), None) => Some(number(length)?),
        (Some(_), Some(_)) => {
            return Err(DecodeError::HeaderLength("given twice".to_owned()).into());
        }
    };
    let timeout = match headers.get(TIMEOUT_MS).map(|text| text.to_str().map(str::parse::<u32>)) {
        None => None,
        Some(Ok(Ok(millis))) => Some(Duration::from_millis(millis.into())),
        Some(_) => {
            let text = format!("{TIMEOUT_MS} must be a number of milliseconds");
            return Err(DecodeError::Request(text).into());
        }
    };
    Ok(Head { coding, length, timeout: timeout.filter(|timeout| !timeout.is_zero()) })
}

/// A number of bytes: digits and nothing else, not even a sign.
fn number(value: &HeaderValue) -> Result<usize, DecodeError> {
    let text = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let parsed = text.and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| {
        DecodeError::HeaderLength(codec::clip(&String::from_utf8_lossy(value.as_bytes())))
    })
}

/// Decode a body, where a large one does not hold up other requests.
async fn decode(live: &Arc<Live>, header: Option<usize>, body: Bytes) -> Result<Decoded, Failure> {
    if header.unwrap_or(body.len()) <= INLINE_JSON {
        return Ok(codec::decode(header, &body, live.model.inputs())?);
    }
    let live = Arc::clone(live);
    let decode = move || codec::decode(header, &body, live.model.inputs());
    Ok(blocking(decode).await??)
}

/// Encode an answer, as [`decode`] decodes.
async fn encode(
    live: &Arc<Live>,
    id: Option<String>,
    response: InferResponse,
    wants: Wants,
) -> Result<Encoded, Failure> {
    let json = |(name, tensor): &(String, wick_nn::Tensor)| {
        if wants.binary(name) { 0 } else { tensor.data().len() }
    };
    let inline = response.outputs.iter().map(json).sum::<usize>() <= INLINE_JSON;
    let live = Arc::clone(live);
    let encode = move || {
        let who = Identity { model: &live.name, version: &live.version, id: id.as_deref() };
        codec::encode(who, &response, &wants)
    };
    Ok(if inline { encode() } else { blocking(encode).await? }?)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Failure::Server(error.to_string()))
}

fn respond(encoded: Encoded) -> Response {
    let mut response = Response::new(Body::new(Pieces::new(encoded.chunks)));
    let headers = response.headers_mut();
    match encoded.header {
        None => {
            headers.insert(header::CONTENT_TYPE, JSON);
        }
        Some(length) => {
            headers.insert(header::CONTENT_TYPE, BINARY);
            headers.insert(HEADER_LENGTH, HeaderValue::from(length));
        }
    }
    response
}
