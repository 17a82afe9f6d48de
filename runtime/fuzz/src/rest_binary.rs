//! The split of a REST body into JSON and binary tensors, and the raw form, which is one tensor
//! and no JSON.

use bytes::Bytes;
use wick_package::{Datatype, Dim, TensorSpec};
use wick_serve::codec;

use crate::round_trip::{self, JSON_GROWTH};

/// Models with one input, for the raw form: all sizes known, one unknown, strings, and two
/// unknown.
fn models() -> [TensorSpec; 4] {
    let spec = |datatype, shape: &[Dim]| TensorSpec {
        name: "x".to_owned(),
        datatype,
        shape: shape.to_vec(),
    };
    [
        spec(Datatype::Fp32, &[Dim::Fixed(2), Dim::Fixed(2)]),
        spec(Datatype::Int16, &[Dim::Any, Dim::Fixed(3)]),
        spec(Datatype::Bytes, &[Dim::Any]),
        spec(Datatype::Uint8, &[Dim::Any, Dim::Any]),
    ]
}

/// The first two bytes are `Inference-Header-Content-Length`, the third a model; the rest is
/// the body.
pub fn check(data: &[u8]) {
    let Some((&[low, high, model], body)) = data.split_first_chunk() else { return };
    let header = usize::from(u16::from_le_bytes([low, high]));
    let body = Bytes::copy_from_slice(body);
    let models = models();
    let inputs = &models[usize::from(model) % models.len()..][..1];
    if let Ok(decoded) = codec::decode(Some(header), &body, inputs) {
        assert!(header <= body.len(), "more JSON than there are bytes");
        round_trip::check(decoded, body.len(), JSON_GROWTH);
    }
}
