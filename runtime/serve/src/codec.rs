//! The Open Inference Protocol's bodies: bytes to an [`InferRequest`], an
//! `InferResponse` to bytes.
//!
//! ```text
//!  header length given:  { JSON .......... } binary tensor, binary tensor, ...
//!  no header length:     { JSON .......... }
//!  header length is 0:   the only input's bytes
//! ```
//!
//! This is pure: it knows no HTTP beyond the number in
//! `Inference-Header-Content-Length`, no model beyond its tensor specifications,
//! and no clock. Binary tensors are slices of the body. JSON tensors are decoded
//! straight into typed buffers.
//!
//! JSON has no NaN, no infinities and no half floats, and its strings are UTF-8. An
//! output that holds one of them is an error that says to ask for binary data:
//! writing `null`, as some servers do, would lose what the model said.

mod cursor;
mod data;
mod decode;
mod encode;
mod fields;
mod floats;
mod parameters;
#[cfg(test)]
mod tests;

use std::time::Duration;

use wick_engine::InferRequest;
use wick_nn::TensorError;
use wick_package::{Datatype, Reason};

pub use decode::decode;
pub(crate) use decode::{SHARED_MEMORY, assemble, check_inputs};
pub use encode::{Encoded, Identity, encode, wanted_json_is_possible};
pub(crate) use fields::Output;
pub(crate) use parameters::Parameters;

/// Most inputs of a request, and most outputs that it may name. Exported language
/// models have about a hundred; a request with more is a mistake.
pub const MAX_TENSORS: usize = 512;

/// Most parameters of a request or a tensor. Clients send fewer than ten.
pub const MAX_PARAMETERS: usize = 128;

/// Longest piece of a client's text that an error message repeats, in bytes.
const MAX_ECHO: usize = 64;

/// A decoded request and how its answer is to be written.
#[derive(Debug, Clone)]
pub struct Decoded {
    pub request: InferRequest,
    pub wants: Wants,
    /// The request's `timeout` parameter: the client's own deadline.
    pub timeout: Option<Duration>,
    /// The request's `priority` parameter, 0 if it has none.
    pub priority: u64,
}

/// Which outputs the client wants as binary data.
#[derive(Debug, Clone, Default)]
pub struct Wants {
    /// `binary_data_output` of the request.
    pub binary: bool,
    /// `binary_data` of outputs that say otherwise, by name.
    pub outputs: Vec<(String, bool)>,
}

/// A body that is not a request. Always the client's mistake.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DecodeError {
    #[error("Inference-Header-Content-Length is `{0}`, and must be a number of bytes")]
    HeaderLength(String),
    #[error("Inference-Header-Content-Length is {header}, and the body has {body} bytes")]
    HeaderPastBody { header: usize, body: usize },
    #[error("the request is not valid JSON: {0}")]
    Json(String),
    #[error("input `{input}`: {source}")]
    Tensor { input: String, source: TensorError },
    #[error("input `{input}`: {detail}")]
    Input { input: String, detail: String },
    #[error("{0}")]
    Request(String),
}

/// A response that cannot be written as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    #[error("output `{output}` is {datatype}, which JSON cannot hold: {ASK_BINARY}")]
    NoJsonForm { output: String, datatype: Datatype },
    #[error(
        "output `{output}` is {datatype}, which typed contents cannot hold: leave out \
         `binary_data_output` for raw contents"
    )]
    NoTypedForm { output: String, datatype: Datatype },
    #[error("output `{output}` holds NaN or an infinity, which JSON cannot hold: {ASK_BINARY}")]
    NotFinite { output: String },
    #[error("output `{output}` holds bytes that are not UTF-8: {ASK_BINARY}")]
    NotUtf8 { output: String },
}

const ASK_BINARY: &str =
    "ask for binary data (`binary_data_output` of the request, or `binary_data` of the output)";

// === impl Wants ===

impl Wants {
    /// Whether the output is to be written as binary data.
    pub fn binary(&self, output: &str) -> bool {
        let own = self.outputs.iter().find(|(name, _)| name == output);
        own.map_or(self.binary, |(_, binary)| *binary)
    }
}

// === impl errors ===

impl Reason for DecodeError {
    fn code(&self) -> &'static str {
        match self {
            Self::HeaderLength(_) | Self::HeaderPastBody { .. } => "bad-header-length",
            Self::Json(_) => "bad-json",
            Self::Tensor { .. } | Self::Input { .. } | Self::Request(_) => "bad-input",
        }
    }
}

impl Reason for EncodeError {
    fn code(&self) -> &'static str {
        match self {
            Self::NoJsonForm { .. } => "no-json-form",
            Self::NoTypedForm { .. } => "no-typed-form",
            Self::NotFinite { .. } | Self::NotUtf8 { .. } => "output-not-json",
        }
    }
}

/// A client's text, short enough to be repeated in an error and a log.
pub fn clip(text: &str) -> String {
    if text.len() <= MAX_ECHO {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(MAX_ECHO)])
}
