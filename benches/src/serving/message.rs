//! The two gRPC messages of an inference, written and read by hand: a request is encoded
//! once and sent many times, and all servers get the same bytes.

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;

use crate::direct::Input;

/// What precedes a message in a gRPC body: no compression, and its length.
const PREFIX: usize = 5;

/// Wire types of protobuf.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

/// Fields of `ModelInferRequest`.
const MODEL_NAME: u64 = 1;
const ID: u64 = 3;
const INPUTS: u64 = 5;
const RAW_INPUT_CONTENTS: u64 = 7;

/// Fields of `InferInputTensor`.
const TENSOR_NAME: u64 = 1;
const TENSOR_DATATYPE: u64 = 2;
const TENSOR_SHAPE: u64 = 3;

/// Fields of `ModelInferResponse`, its `InferOutputTensor`, and the `InferTensorContents` in it.
const OUTPUTS: u64 = 5;
const RAW_OUTPUT_CONTENTS: u64 = 6;
const OUTPUT_CONTENTS: u64 = 5;
const FP32_CONTENTS: u64 = 6;

/// A `ModelInferRequest` with its prefix. The tensor goes in `raw_input_contents`, which every
/// client in use prefers.
pub fn infer_request(model: &str, name: &str, input: &Input) -> Bytes {
    let mut shape = Vec::new();
    for dim in input.shape() {
        varint(&mut shape, dim.cast_unsigned());
    }
    let mut tensor = Vec::new();
    field(&mut tensor, TENSOR_NAME, name.as_bytes());
    field(&mut tensor, TENSOR_DATATYPE, input.datatype().as_bytes());
    field(&mut tensor, TENSOR_SHAPE, &shape);
    let mut message = vec![0; PREFIX];
    field(&mut message, MODEL_NAME, model.as_bytes());
    field(&mut message, ID, b"1");
    field(&mut message, INPUTS, &tensor);
    field(&mut message, RAW_INPUT_CONTENTS, &input.bytes());
    // A generated request is far below the 4 GiB that the prefix can say.
    let len = (message.len() - PREFIX) as u32;
    message[1..PREFIX].copy_from_slice(&len.to_be_bytes());
    message.into()
}

/// The first output of a gRPC body that holds a `ModelInferResponse`.
pub fn first_output(body: &[u8]) -> anyhow::Result<Vec<f32>> {
    let (prefix, message) = body.split_at_checked(PREFIX).context("the body has no message")?;
    ensure!(prefix[0] == 0, "the answer is compressed");
    let mut typed = None;
    for item in fields(message)? {
        match item {
            (RAW_OUTPUT_CONTENTS, raw) => return Ok(floats(raw)),
            (OUTPUTS, tensor) => typed = typed.or(Some(tensor)),
            _ => {}
        }
    }
    let tensor = fields(typed.context("the answer has no output")?)?;
    let contents = tensor.iter().find(|(number, _)| *number == OUTPUT_CONTENTS);
    let contents = fields(contents.context("the output has no contents")?.1)?;
    let values = contents.iter().find(|(number, _)| *number == FP32_CONTENTS);
    Ok(floats(values.context("the output has no FP32 contents")?.1))
}

pub fn floats(bytes: &[u8]) -> Vec<f32> {
    let (words, _) = bytes.as_chunks::<4>();
    words.iter().map(|word| f32::from_le_bytes(*word)).collect()
}

fn field(to: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    varint(to, number << 3 | BYTES);
    varint(to, bytes.len() as u64);
    to.extend_from_slice(bytes);
}

fn varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        // The low seven bits, and the bit that says that more follow.
        to.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

/// The fields of a message that hold bytes; others are skipped.
fn fields(mut message: &[u8]) -> anyhow::Result<Vec<(u64, &[u8])>> {
    let mut found = Vec::new();
    while !message.is_empty() {
        let tag = take_varint(&mut message)?;
        let len = match tag & 7 {
            VARINT => take_varint(&mut message).map(|_| 0)?,
            FIXED64 => 8,
            BYTES => usize::try_from(take_varint(&mut message)?)?,
            FIXED32 => 4,
            other => bail!("wire type {other}"),
        };
        let (bytes, rest) = message.split_at_checked(len).context("a field is cut off")?;
        if tag & 7 == BYTES {
            found.push((tag >> 3, bytes));
        }
        message = rest;
    }
    Ok(found)
}

fn take_varint(from: &mut &[u8]) -> anyhow::Result<u64> {
    let mut value = 0;
    // 10 groups of 7 bits hold 64 bits.
    for group in 0..10 {
        let (byte, rest) = from.split_first().context("a number is cut off")?;
        *from = rest;
        value |= u64::from(byte & 0x7f) << (7 * group);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    bail!("a number is longer than 64 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_the_bytes_of_the_protocols_definition() {
        let input = Input::F32(vec![1, 300], vec![0.0; 300]);
        let body = infer_request("m", "x", &input);
        // 25 bytes and the 1200 of the tensor.
        assert_eq!(body[..5], [0, 0, 0, 4, 201]);
        let head =
            b"\x0a\x01m\x1a\x011\x2a\x0e\x0a\x01x\x12\x04FP32\x1a\x03\x01\xac\x02\x3a\xb0\x09";
        assert_eq!(&body[5..5 + head.len()], head);
        assert_eq!(body.len(), 5 + head.len() + 1200);
    }

    #[test]
    fn raw_and_typed_outputs_are_both_read() {
        let raw = b"\0\0\0\0\0\x0a\x01m\x32\x04\0\0\x80\x3f";
        assert_eq!(first_output(raw).ok(), Some(vec![1.0]));
        let typed = b"\0\0\0\0\0\x2a\x08\x2a\x06\x32\x04\0\0\x80\x3f";
        assert_eq!(first_output(typed).ok(), Some(vec![1.0]));
    }

    #[test]
    fn a_cut_off_answer_is_an_error() {
        let raw = b"\0\0\0\0\0\x0a\x01m\x32\x04\0\0\x80\x3f";
        for len in 0..raw.len() {
            assert!(first_output(&raw[..len]).is_err(), "{len} bytes");
        }
    }
}
