//! Weights from other files moved into the model's own, so that a package has one file for a
//! graph: it can be packed, mapped and digested as one.
//!
//! First a plan is made, pure, from what `Model` remembers: which bytes stay and which come from
//! where. Then it is written from front to back, so that no model is held in memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write};
use std::ops::Range;

use wick_package::RelPath;

use super::model::{External, Inner, Model, Part};

/// Largest model file. Protobuf, and so every reader of ONNX, counts in 31 bits.
pub const MAX_INLINE: u64 = (1 << 31) - 1;

/// Bytes copied at once; progress is told after each.
const CHUNK: u64 = 4 << 20;

/// Number and wire type of `TensorProto.raw_data`.
const RAW_DATA: u8 = 9 << 3 | 2;

/// Outside data that can't be moved in.
#[derive(Debug, thiserror::Error)]
pub enum InlineError {
    #[error("`{location}` has {size} bytes, and the weights of `{tensor}` end at byte {end}")]
    Short { tensor: String, location: RelPath, size: u64, end: u64 },
    #[error("`{location}`, which holds weights of `{tensor}`, is missing")]
    Missing { tensor: String, location: RelPath },
}

/// What a model with all its weights is written from.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Size of the result.
    pub len: u64,
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq)]
enum Segment {
    /// Bytes of the model file as they are.
    Kept(Range<u64>),
    /// A tag or a length that has changed.
    New(Vec<u8>),
    Outside {
        location: RelPath,
        range: Range<u64>,
    },
}

// === impl Plan ===

impl Plan {
    /// Plan for a model and the sizes of the files beside it.
    ///
    /// # Errors
    /// A file is missing, or shorter than the model says.
    pub fn new(model: &Model, sizes: &BTreeMap<RelPath, u64>) -> Result<Self, InlineError> {
        let segments = message(&(0..model.len), &model.parts, sizes)?;
        Ok(Self { len: total(&segments), segments })
    }

    /// Write it; `advance` gets the number of bytes after each step.
    ///
    /// # Errors
    /// A file can't be read or the result can't be written.
    pub fn write(
        &self,
        model: &mut File,
        outside: &mut BTreeMap<RelPath, File>,
        to: &mut impl Write,
        advance: &mut dyn FnMut(u64),
    ) -> io::Result<()> {
        for segment in &self.segments {
            let (from, range) = match segment {
                Segment::New(bytes) => {
                    to.write_all(bytes)?;
                    continue;
                }
                Segment::Kept(range) => (&mut *model, range),
                Segment::Outside { location, range } => match outside.get_mut(location) {
                    Some(file) => (file, range),
                    None => return Err(io::Error::new(io::ErrorKind::NotFound, location.as_str())),
                },
            };
            copy(from, range.clone(), to, advance)?;
        }
        Ok(())
    }
}

fn copy(
    from: &mut File,
    range: Range<u64>,
    to: &mut impl Write,
    advance: &mut dyn FnMut(u64),
) -> io::Result<()> {
    from.seek(SeekFrom::Start(range.start))?;
    let mut left = range.end - range.start;
    while left > 0 {
        let count = io::copy(&mut Read::by_ref(from).take(left.min(CHUNK)), to)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left -= count;
        advance(count);
    }
    Ok(())
}

/// A message whose `parts` change.
fn message(
    body: &Range<u64>,
    parts: &[Part],
    sizes: &BTreeMap<RelPath, u64>,
) -> Result<Vec<Segment>, InlineError> {
    let mut segments = Vec::new();
    let mut at = body.start;
    for part in parts {
        keep(&mut segments, at..part.whole.start);
        let inner = match &part.inner {
            Inner::Message(parts) => message(&part.body, parts, sizes)?,
            Inner::Tensor(external) => tensor(external, sizes)?,
        };
        let mut header = varint(part.number << 3 | 2);
        header.extend(varint(total(&inner)));
        segments.push(Segment::New(header));
        segments.extend(inner);
        at = part.whole.end;
    }
    keep(&mut segments, at..body.end);
    Ok(segments)
}

/// A tensor with its data.
fn tensor(
    external: &External,
    sizes: &BTreeMap<RelPath, u64>,
) -> Result<Vec<Segment>, InlineError> {
    let External { name, location, offset, length, kept } = external;
    let missing = || InlineError::Missing { tensor: name.clone(), location: location.clone() };
    let size = *sizes.get(location).ok_or_else(missing)?;
    let length = length.unwrap_or_else(|| size.saturating_sub(*offset));
    let end = offset.saturating_add(length);
    if end > size {
        let (tensor, location) = (name.clone(), location.clone());
        return Err(InlineError::Short { tensor, location, size, end });
    }
    let mut segments = Vec::new();
    for range in kept {
        keep(&mut segments, range.clone());
    }
    let mut header = vec![RAW_DATA];
    header.extend(varint(length));
    segments.push(Segment::New(header));
    if length > 0 {
        segments.push(Segment::Outside { location: location.clone(), range: *offset..end });
    }
    Ok(segments)
}

/// Keep a range, joined with the one before it where they touch.
fn keep(segments: &mut Vec<Segment>, range: Range<u64>) {
    match segments.last_mut() {
        _ if range.is_empty() => {}
        Some(Segment::Kept(last)) if last.end == range.start => last.end = range.end,
        _ => segments.push(Segment::Kept(range)),
    }
}

fn total(segments: &[Segment]) -> u64 {
    let len = |segment: &Segment| match segment {
        Segment::New(bytes) => bytes.len() as u64,
        Segment::Kept(range) | Segment::Outside { range, .. } => range.end - range.start,
    };
    // A hostile model may name the same bytes many times over.
    segments.iter().map(len).fold(0, u64::saturating_add)
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

#[cfg(test)]
mod tests;
