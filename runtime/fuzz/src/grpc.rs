//! The message of an inference over gRPC, with raw contents or typed ones.

use bytes::Bytes;
use wick_serve::grpc;

use crate::round_trip;

/// Most bytes that a byte of a message becomes: a number below 128 is an INT64, and an empty
/// string in two bytes has four for its length.
const GROWTH: usize = 8;

/// The bytes of a `ModelInferRequest`.
pub fn check(data: &[u8]) {
    if let Ok(decoded) = grpc::decode(Bytes::copy_from_slice(data)) {
        round_trip::check(decoded, data.len(), GROWTH);
    }
}
