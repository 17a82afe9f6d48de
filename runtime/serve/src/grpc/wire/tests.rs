//! What is counted before it is decoded, and that nothing hides from it.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::grpc::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use crate::grpc::proto::{InferParameter, InferTensorContents, ModelInferRequest};

fn parameters(count: usize) -> BTreeMap<String, InferParameter> {
    (0..count).map(|number| (number.to_string(), InferParameter::default())).collect()
}

fn input(input: InferInputTensor) -> ModelInferRequest {
    ModelInferRequest { inputs: vec![input], ..Default::default() }
}

/// As many as allowed pass, and one more does not.
fn check(what: &str, max: usize, message: impl Fn(usize) -> ModelInferRequest) {
    assert_eq!(ModelInferRequest::check(&message(max).encode_to_vec()), Ok(()), "{what}");
    let refused = ModelInferRequest::check(&message(max + 1).encode_to_vec()).unwrap_err();
    assert!(refused.to_string().starts_with(&format!("more than {max} {what}")), "{refused}");
}

#[test]
fn what_repeats_is_counted() {
    check("inputs", MAX_TENSORS, |count| ModelInferRequest {
        inputs: vec![InferInputTensor::default(); count],
        ..Default::default()
    });
    check("outputs", MAX_TENSORS, |count| ModelInferRequest {
        outputs: vec![InferRequestedOutputTensor::default(); count],
        ..Default::default()
    });
    check("raw_input_contents", MAX_TENSORS, |count| ModelInferRequest {
        raw_input_contents: vec![bytes::Bytes::new(); count],
        ..Default::default()
    });
    check("parameters", MAX_PARAMETERS, |count| ModelInferRequest {
        parameters: parameters(count),
        ..Default::default()
    });
    check("parameters", MAX_PARAMETERS, |count| {
        input(InferInputTensor { parameters: parameters(count), ..Default::default() })
    });
    check("parameters", MAX_PARAMETERS, |count| ModelInferRequest {
        outputs: vec![InferRequestedOutputTensor {
            parameters: parameters(count),
            ..Default::default()
        }],
        ..Default::default()
    });
    check("dimensions", MAX_RANK, |count| {
        input(InferInputTensor { shape: vec![300; count], ..Default::default() })
    });
    check("strings", MAX_STRINGS, |count| {
        let bytes_contents = vec![bytes::Bytes::new(); count];
        let contents = Some(InferTensorContents { bytes_contents, ..Default::default() });
        input(InferInputTensor { contents, ..Default::default() })
    });
}

#[test]
fn dimensions_that_are_not_packed_are_counted_too() {
    // Field 3 as a number, each time.
    let shape = [0x18, 1].repeat(MAX_RANK + 1);
    let len = u8::try_from(shape.len()).unwrap();
    let message = [&[0x2a, len][..], &shape].concat();
    let refused = ModelInferRequest::check(&message).unwrap_err();
    assert_eq!(refused, Refused::TooMany { what: "dimensions", max: MAX_RANK });
}

#[test]
fn groups_and_broken_bytes_are_refused() {
    for wire in [&[0x2b][..], &[0x2a, 5, 0], &[0x80], &[0x2a, 0xff, 0xff, 0xff, 0xff, 0xff]] {
        assert_eq!(ModelInferRequest::check(wire), Err(Refused::Malformed), "{wire:?}");
    }
}

#[test]
fn requests_without_tensors_are_small() {
    let message = proto::ModelReadyRequest { name: "m".repeat(MAX_CONTROL), ..Default::default() };
    assert!(proto::ModelReadyRequest::check(&message.encode_to_vec()).is_err());
    assert_eq!(proto::ModelReadyRequest::check(b""), Ok(()));
}

proptest! {
    /// Whatever passes is decoded or refused, and never takes much more than its bytes.
    #[test]
    fn no_bytes_panic(wire in prop::collection::vec(any::<u8>(), 0..200)) {
        if ModelInferRequest::check(&wire).is_ok() {
            let _ = ModelInferRequest::decode(&wire[..]);
        }
    }
}
