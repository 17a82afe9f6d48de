//! The body of a REST request that is JSON only.

use bytes::Bytes;
use wick_serve::codec;

use crate::round_trip::{self, JSON_GROWTH};

/// The bytes are the body.
pub fn check(data: &[u8]) {
    let body = Bytes::copy_from_slice(data);
    if let Ok(decoded) = codec::decode(None, &body, &[]) {
        round_trip::check(decoded, body.len(), JSON_GROWTH);
    }
}
