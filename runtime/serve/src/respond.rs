//! What goes wrong, and the one table that turns it into a status.
//!
//! Every answer that is not the asked-for one is `{"error": "...", "code": "..."}`;
//! the code is the stable word of [`Reason`], which logs and metrics use too.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{self, HeaderValue};
use http::{Method, StatusCode};
use serde::Serialize;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};
use wick_engine::InferError;
use wick_package::Reason;

use crate::body::Whose;
use crate::codec::{DecodeError, EncodeError, clip};
use crate::compression;
use crate::repository::State;

/// Seconds after which a client may try again where nothing tells how long it takes;
/// anything longer would only make clients slow.
pub(crate) const RETRY_AFTER: u64 = 1;

/// What a gRPC status has beside its text: the stable word, and the same number of seconds.
const GRPC_CODE: &str = "wick-code";
const GRPC_RETRY_AFTER: &str = "retry-after";

/// How to authenticate.
const BEARER: HeaderValue = HeaderValue::from_static("Bearer realm=\"wick\"");

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A request that is not answered as asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Failure {
    #[error("there is nothing at {0}: see /v2 and /v2/models")]
    UnknownPath(String),
    #[error("{method} is not possible here")]
    Method { method: Method },
    #[error("model `{model}` is unknown; this server has {known}")]
    UnknownModel { model: String, known: String },
    #[error("model `{model}` has version {have}, not `{version}`")]
    UnknownVersion { model: String, version: String, have: String },
    #[error("model `{model}` answers HTTP itself: call it at its own paths, not with /infer")]
    NotTensors { model: String },
    #[error("Content-Encoding `{0}` is not supported: send zstd, gzip, deflate or none")]
    ContentEncoding(String),
    #[error("the only Transfer-Encoding is `chunked`, once: send Content-Length, or that")]
    TransferCoding,
    #[error("the body is larger than {limit} bytes, which is the limit of {whose}")]
    TooLarge { limit: u64, whose: Whose },
    #[error("the body did not arrive within {0:?}")]
    SlowBody(Duration),
    #[error("the body broke off: {0}")]
    BrokenBody(String),
    #[error("the body is not valid {coding}: {detail}")]
    Compressed { coding: &'static str, detail: String },
    #[error("the server holds as many bytes of requests as it may")]
    OutOfBodyMemory,
    #[error("model `{model}` has as many requests waiting as it may")]
    QueueFull { model: String, retry_after: u64 },
    #[error("the request waited {waited:?} for model `{model}`, and did not get its turn")]
    WaitedTooLong { model: String, waited: Duration },
    #[error("the request did not end within the {0:?} that the client gives it")]
    ClientDeadline(Duration),
    #[error("the server is shutting down")]
    Draining,
    #[error("model `{model}` is {state}")]
    NotReady { model: String, state: State },
    #[error("model `{model}` left memory, and cannot be loaded again: {why}")]
    Asleep { model: String, why: String },
    #[error(
        "model `{model}` is not in memory and needs {need} bytes; all models together may have \
         {limit} by {by}, and others are at work: try again later"
    )]
    NoRoom { model: String, need: u64, limit: u64, by: &'static str },
    #[error("model `{model}` is not loaded: {why}")]
    NotLoaded { model: String, why: String },
    #[error("models are not loaded and unloaded by request: start the server with --model-control")]
    NoModelControl,
    #[error("a token is needed: send `Authorization: Bearer TOKEN`")]
    NoToken,
    #[error("the token is not one that this server knows")]
    UnknownToken,
    #[error("token `{token}` is not for model `{model}`: add it to the token's `models`")]
    ModelForbidden { model: String, token: String },
    #[error("token `{token}` may not load and unload models: its entry has no `control = true`")]
    ControlForbidden { token: String },
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error(transparent)]
    Infer(#[from] InferError),
    #[error("the server failed: {0}")]
    Server(String),
}

/// Why a request failed, in Triton's words for `nv_inference_request_failure`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureClass {
    Rejected,
    Canceled,
    Backend,
    Other,
}

#[derive(Serialize)]
struct ErrorJson<'a> {
    error: &'a str,
    code: &'a str,
}

// === impl Failure ===

impl Failure {
    /// The table.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Decode(_)
            | Self::Encode(EncodeError::NoJsonForm { .. } | EncodeError::NoTypedForm { .. })
            | Self::BrokenBody(_)
            | Self::Compressed { .. }
            | Self::NotTensors { .. }
            // Triton's status for it; what was live goes on serving.
            | Self::NotLoaded { .. }
            | Self::Infer(InferError::BadInput(_)) => StatusCode::BAD_REQUEST,
            Self::UnknownPath(_)
            | Self::UnknownModel { .. }
            | Self::UnknownVersion { .. }
            | Self::Infer(InferError::NotFound(_)) => StatusCode::NOT_FOUND,
            Self::NoToken | Self::UnknownToken => StatusCode::UNAUTHORIZED,
            Self::NoModelControl
            | Self::ModelForbidden { .. }
            | Self::ControlForbidden { .. } => StatusCode::FORBIDDEN,
            Self::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::SlowBody(_) => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge { .. } | Self::Infer(InferError::TooLarge(_)) => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            Self::ContentEncoding(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TransferCoding => StatusCode::NOT_IMPLEMENTED,
            Self::QueueFull { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::WaitedTooLong { .. }
            | Self::Draining
            | Self::NotReady { .. }
            | Self::Asleep { .. }
            | Self::NoRoom { .. }
            | Self::OutOfBodyMemory
            | Self::Infer(InferError::Unavailable(_) | InferError::Cancelled) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::ClientDeadline(_) | Self::Infer(InferError::Deadline(_)) => {
                StatusCode::GATEWAY_TIMEOUT
            }
            Self::Encode(EncodeError::NotFinite { .. } | EncodeError::NotUtf8 { .. })
            | Self::Infer(
                InferError::Guest { .. } | InferError::Internal(_) | InferError::Backend(_),
            )
            | Self::Server(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The failure as gRPC says it.
    pub fn to_status(&self) -> Status {
        let mut metadata = MetadataMap::new();
        metadata.insert(GRPC_CODE, MetadataValue::from_static(self.code()));
        if let Some(seconds) = self.retry_after() {
            metadata.insert(GRPC_RETRY_AFTER, MetadataValue::from(seconds));
        }
        Status::with_metadata(grpc_code(self.status()), self.to_string(), metadata)
    }

    /// Seconds after which the same request may succeed.
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Self::QueueFull { retry_after, .. } => Some(*retry_after),
            _ if self.status() == StatusCode::SERVICE_UNAVAILABLE => Some(RETRY_AFTER),
            _ => None,
        }
    }

    /// The failure's column in Triton's metric.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::QueueFull { .. }
            | Self::WaitedTooLong { .. }
            | Self::Draining
            | Self::NotReady { .. }
            | Self::NoRoom { .. }
            | Self::OutOfBodyMemory
            | Self::ClientDeadline(_) => FailureClass::Rejected,
            Self::Infer(InferError::Cancelled) => FailureClass::Canceled,
            Self::Infer(
                InferError::Guest { .. }
                | InferError::Internal(_)
                | InferError::Backend(_)
                | InferError::Deadline(_),
            ) => FailureClass::Backend,
            _ => FailureClass::Other,
        }
    }

    /// The body of its answer.
    pub fn to_json(&self) -> Vec<u8> {
        to_json(&ErrorJson { error: &self.to_string(), code: self.code() })
    }

    /// Write down a request that was not answered as asked.
    pub fn log(&self, model: &str, duration_us: u64) {
        let (status, code) = (self.status().as_u16(), self.code());
        tracing::info!(model, status, code, duration_us, error = %self, "not answered");
    }

    /// A path that nobody serves, short enough to be repeated.
    pub fn unknown_path(path: &str) -> Self {
        Self::UnknownPath(clip(path))
    }
}

impl Reason for Failure {
    fn code(&self) -> &'static str {
        match self {
            Self::UnknownPath(_) | Self::UnknownModel { .. } | Self::UnknownVersion { .. } => {
                "not-found"
            }
            Self::Method { .. } => "method-not-allowed",
            Self::NotTensors { .. } => "not-a-tensor-model",
            Self::ContentEncoding(_) => "content-encoding",
            Self::TransferCoding => "transfer-encoding",
            Self::TooLarge { .. } => "too-large",
            Self::SlowBody(_) => "slow-body",
            Self::BrokenBody(_) => "broken-body",
            Self::Compressed { .. } => "bad-compression",
            Self::OutOfBodyMemory => "out-of-body-memory",
            Self::QueueFull { .. } => "queue-full",
            Self::WaitedTooLong { .. } => "waited-too-long",
            Self::ClientDeadline(_) => "deadline",
            Self::Draining => "draining",
            Self::NotReady { .. } => "not-ready",
            Self::NotLoaded { .. } | Self::Asleep { .. } => "not-loaded",
            Self::NoRoom { .. } => "no-room",
            Self::NoModelControl => "no-model-control",
            Self::NoToken => "no-token",
            Self::UnknownToken => "unknown-token",
            Self::ModelForbidden { .. } => "model-forbidden",
            Self::ControlForbidden { .. } => "control-forbidden",
            Self::Decode(error) => error.code(),
            Self::Encode(error) => error.code(),
            Self::Infer(error) => error.code(),
            Self::Server(_) => "internal",
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = ErrorJson { error: &self.to_string(), code: self.code() };
        let mut response = json(self.status(), &body);
        if let Some(seconds) = self.retry_after() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status() == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, BEARER);
        }
        if let Self::ContentEncoding(_) = self {
            response.headers_mut().insert(header::ACCEPT_ENCODING, compression::ACCEPTED);
        }
        response
    }
}

// === impl FailureClass ===

impl FailureClass {
    pub const ALL: [Self; 4] = [Self::Rejected, Self::Canceled, Self::Backend, Self::Other];

    /// The value of the metric's `reason` label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "REJECTED",
            Self::Canceled => "CANCELED",
            Self::Backend => "BACKEND",
            Self::Other => "OTHER",
        }
    }
}

/// The table's other column: gRPC's code for each HTTP status.
fn grpc_code(status: StatusCode) -> Code {
    match status {
        StatusCode::BAD_REQUEST => Code::InvalidArgument,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::METHOD_NOT_ALLOWED
        | StatusCode::UNSUPPORTED_MEDIA_TYPE
        | StatusCode::NOT_IMPLEMENTED => Code::Unimplemented,
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => Code::DeadlineExceeded,
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::TOO_MANY_REQUESTS => Code::ResourceExhausted,
        StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        _ => Code::Internal,
    }
}

/// A JSON answer.
pub fn json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    let mut response = Response::new(Body::from(to_json(value)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}

fn to_json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_else(|_| b"{}".to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What REST and gRPC say of a failure: the status of each, the word, and whether to try
    /// again.
    fn told(failure: Failure) -> String {
        let (word, text) = (failure.code(), failure.to_string());
        let grpc = failure.to_status();
        let response = failure.into_response();
        let retry = response.headers().contains_key(header::RETRY_AFTER);
        assert_eq!(grpc.message(), text);
        assert_eq!(grpc.metadata().get(GRPC_CODE).unwrap(), word);
        assert_eq!(grpc.metadata().contains_key(GRPC_RETRY_AFTER), retry, "{text}");
        let retry = if retry { " retry" } else { "" };
        format!("{} {:?} {word}{retry}", response.status().as_u16(), grpc.code())
    }

    #[test]
    fn every_failure_has_its_status_and_its_words() {
        let model = || "m".to_owned();
        let zero = Duration::ZERO;
        let table: [(Failure, &str); 20] = [
            (
                Failure::QueueFull { model: model(), retry_after: 3 },
                "429 ResourceExhausted queue-full retry",
            ),
            (
                Failure::WaitedTooLong { model: model(), waited: zero },
                "503 Unavailable waited-too-long retry",
            ),
            (
                Failure::NotReady { model: model(), state: State::Loading },
                "503 Unavailable not-ready retry",
            ),
            (Failure::Asleep { model: model(), why: model() }, "503 Unavailable not-loaded retry"),
            (
                Failure::NoRoom { model: model(), need: 2, limit: 1, by: "--max-loaded-memory" },
                "503 Unavailable no-room retry",
            ),
            (Failure::Draining, "503 Unavailable draining retry"),
            (Failure::ClientDeadline(zero), "504 DeadlineExceeded deadline"),
            (InferError::Deadline(zero).into(), "504 DeadlineExceeded deadline"),
            (InferError::BadInput(model()).into(), "400 InvalidArgument bad-input"),
            (InferError::NotFound(model()).into(), "404 NotFound not-found"),
            (Failure::unknown_path("/x"), "404 NotFound not-found"),
            (InferError::TooLarge(model()).into(), "413 ResourceExhausted too-large"),
            (Failure::NoToken, "401 Unauthenticated no-token"),
            (Failure::UnknownToken, "401 Unauthenticated unknown-token"),
            (
                Failure::ModelForbidden { model: model(), token: model() },
                "403 PermissionDenied model-forbidden",
            ),
            (
                Failure::ControlForbidden { token: model() },
                "403 PermissionDenied control-forbidden",
            ),
            (Failure::SlowBody(zero), "408 DeadlineExceeded slow-body"),
            (
                InferError::Guest { model: model(), detail: model() }.into(),
                "500 Internal guest-failed",
            ),
            (InferError::Backend(model()).into(), "500 Internal backend-failed"),
            (InferError::Internal(model()).into(), "500 Internal internal"),
        ];
        for (failure, want) in table {
            assert_eq!(told(failure), want);
        }
    }
}
