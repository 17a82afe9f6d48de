//! Messages to bytes and back, with a look at the bytes before they are decoded.
//!
//! A decoded message can be far larger than its bytes: an empty input takes two of them and
//! a hundred times as much when decoded, so a body within its limit could take all memory.
//! What repeats is therefore counted first, without an allocation. Elements of typed
//! contents are not: eight times is the worst there, and their number is the shape's.

use std::marker::PhantomData;

use bytes::Buf as _;
use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use wick_nn::MAX_RANK;

use super::proto;
use crate::codec::{MAX_PARAMETERS, MAX_TENSORS};

/// Bytes of any request that is not an inference: a few words.
const MAX_CONTROL: usize = 64 << 10;

/// Most strings of a request in typed contents, each of which takes 32 bytes beside its own.
/// As raw contents there may be more.
const MAX_STRINGS: usize = 1 << 20;

/// The codec of all calls.
#[derive(Debug)]
pub struct Checked<T, U>(PhantomData<(T, U)>);

/// Encodes into a buffer that is large enough from the start.
#[derive(Debug)]
pub struct Presized<T>(PhantomData<T>);

/// Decodes what passed [`Bounded::check`].
#[derive(Debug)]
pub struct Bounding<U>(PhantomData<U>);

/// A message that may be refused before it is decoded.
pub trait Bounded {
    /// Look at the bytes.
    ///
    /// # Errors
    /// What is too much, or wrong.
    fn check(wire: &[u8]) -> Result<(), Refused> {
        if wire.len() <= MAX_CONTROL {
            return Ok(());
        }
        Err(Refused::TooMany { what: "bytes in a request without tensors", max: MAX_CONTROL })
    }
}

/// Bytes that are not decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("more than {max} {what}")]
    TooMany { what: &'static str, max: usize },
    #[error("the bytes are no message of the protocol")]
    Malformed,
}

/// A field of a message.
struct Field<'a> {
    number: u64,
    /// The bytes of a field that has a length; else none.
    bytes: Option<&'a [u8]>,
}

/// The fields of a message, one after another.
struct Fields<'a>(&'a [u8]);

/// How often something may come.
struct Count {
    what: &'static str,
    max: usize,
    left: usize,
}

// === impl Checked ===

impl<T, U> Default for Checked<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for Checked<T, U>
where
    T: Message + 'static,
    U: Message + Bounded + Default + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = Presized<T>;
    type Decoder = Bounding<U>;

    fn encoder(&mut self) -> Self::Encoder {
        Presized(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        Bounding(PhantomData)
    }
}

impl<T: Message> Encoder for Presized<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buf.reserve(item.encoded_len());
        item.encode(buf).map_err(|error| Status::internal(error.to_string()))
    }
}

impl<U: Message + Bounded + Default> Decoder for Bounding<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        U::check(buf.chunk()).map_err(|refused| Status::invalid_argument(refused.to_string()))?;
        let message = U::decode(buf);
        message.map(Some).map_err(|error| Status::invalid_argument(error.to_string()))
    }
}

// === impl Bounded ===

macro_rules! small {
    ($($message:ident),* $(,)?) => { $(impl Bounded for proto::$message {})* };
}

small! {
    ServerLiveRequest, ServerReadyRequest, ModelReadyRequest, ServerMetadataRequest,
    ModelMetadataRequest, ModelConfigRequest, ModelStatisticsRequest, RepositoryIndexRequest,
    RepositoryModelLoadRequest, RepositoryModelUnloadRequest,
}

impl Bounded for proto::ModelInferRequest {
    fn check(wire: &[u8]) -> Result<(), Refused> {
        let mut inputs = Count::new("inputs", MAX_TENSORS);
        let mut outputs = Count::new("outputs", MAX_TENSORS);
        let mut raw = Count::new("raw_input_contents", MAX_TENSORS);
        let mut parameters = Count::parameters();
        let mut strings = Count::new("strings in bytes_contents: send them raw", MAX_STRINGS);
        let mut fields = Fields(wire);
        while let Some(field) = fields.next()? {
            match (field.number, field.bytes) {
                (4, _) => parameters.take(1)?,
                (5, Some(input)) => {
                    inputs.take(1)?;
                    check_input(input, &mut strings)?;
                }
                (6, Some(output)) => {
                    outputs.take(1)?;
                    check_output(output)?;
                }
                (7, _) => raw.take(1)?,
                _ => {}
            }
        }
        Ok(())
    }
}

fn check_input(wire: &[u8], strings: &mut Count) -> Result<(), Refused> {
    let mut dimensions = Count::new("dimensions", MAX_RANK);
    let mut parameters = Count::parameters();
    let mut fields = Fields(wire);
    while let Some(field) = fields.next()? {
        match (field.number, field.bytes) {
            // A number ends with the byte that has no mark for another one.
            (3, Some(packed)) => {
                dimensions.take(packed.iter().filter(|&&byte| byte < 0x80).count())?;
            }
            (3, None) => dimensions.take(1)?,
            (4, _) => parameters.take(1)?,
            (5, Some(contents)) => {
                let mut fields = Fields(contents);
                while let Some(field) = fields.next()? {
                    strings.take(usize::from(field.number == 8))?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_output(wire: &[u8]) -> Result<(), Refused> {
    let mut parameters = Count::parameters();
    let mut fields = Fields(wire);
    while let Some(field) = fields.next()? {
        parameters.take(usize::from(field.number == 2))?;
    }
    Ok(())
}

// === impl Fields, Count ===

impl<'a> Fields<'a> {
    fn next(&mut self) -> Result<Option<Field<'a>>, Refused> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let bytes = match key & 7 {
            0 => self.varint().map(|_| None)?,
            1 => self.bytes(8).map(|_| None)?,
            2 => {
                let len = self.varint()?;
                Some(self.bytes(usize::try_from(len).map_err(|_| Refused::Malformed)?)?)
            }
            5 => self.bytes(4).map(|_| None)?,
            // Groups are not in the protocol, and would hide what they hold from the counts.
            _ => return Err(Refused::Malformed),
        };
        Ok(Some(Field { number: key >> 3, bytes }))
    }

    fn varint(&mut self) -> Result<u64, Refused> {
        let number = prost::encoding::decode_varint(&mut self.0);
        number.map_err(|_| Refused::Malformed)
    }

    fn bytes(&mut self, len: usize) -> Result<&'a [u8], Refused> {
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(Refused::Malformed)?;
        self.0 = rest;
        Ok(bytes)
    }
}

impl Count {
    fn new(what: &'static str, max: usize) -> Self {
        Self { what, max, left: max }
    }

    fn parameters() -> Self {
        Self::new("parameters", MAX_PARAMETERS)
    }

    fn take(&mut self, some: usize) -> Result<(), Refused> {
        let left = self.left.checked_sub(some);
        self.left = left.ok_or(Refused::TooMany { what: self.what, max: self.max })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
