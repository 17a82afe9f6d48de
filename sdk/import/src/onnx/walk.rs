//! The fields of a protobuf message in a file, one after another, without reading the bytes of
//! those that nobody asks for: gigabytes of weights cost a seek each.
//!
//! It knows the wire format and nothing of ONNX.

use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;

/// Most fields that are looked at in one file. Graphs of language models have some hundred
/// thousand; a file that was made to keep us busy has one in every two bytes.
const MAX_FIELDS: u64 = 50_000_000;

/// Bytes read at once: the headers of neighbouring small fields come with one read.
const BUFFER: usize = 16 << 10;

/// Why a file is no protobuf message.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    #[error("it cannot be read")]
    Io(#[source] io::Error),
    #[error("byte {at} is no field of a protobuf message")]
    Malformed { at: u64 },
    #[error("a field at byte {at} ends behind its message: the file was cut short or damaged")]
    Cut { at: u64 },
    #[error("it has more than {MAX_FIELDS} fields")]
    Endless,
    #[error("a field of {len} bytes at byte {at} is longer than the {most} that make sense there")]
    Long { at: u64, len: u64, most: u64 },
}

/// A file whose fields are walked over.
pub(super) struct Walker<R> {
    file: BufReader<R>,
    at: u64,
    len: u64,
    fields: u64,
}

/// One field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) number: u64,
    pub(super) value: Value,
    /// The field with its tag, in bytes of the file.
    pub(super) whole: Range<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Number(u64),
    /// Four or eight bytes.
    Fixed,
    /// Text, bytes, a message or packed numbers: where they are in the file.
    Bytes(Range<u64>),
}

// === impl Walker ===

impl<R: Read + Seek> Walker<R> {
    pub(super) fn new(mut file: R) -> Result<Self, WalkError> {
        let len = file.seek(SeekFrom::End(0)).map_err(WalkError::Io)?;
        file.rewind().map_err(WalkError::Io)?;
        Ok(Self { file: BufReader::with_capacity(BUFFER, file), at: 0, len, fields: 0 })
    }

    /// The whole file as a message.
    pub(super) fn message(&self) -> Range<u64> {
        0..self.len
    }

    /// Take the next field off the front of a message; none at its end.
    pub(super) fn next(&mut self, message: &mut Range<u64>) -> Result<Option<Field>, WalkError> {
        if message.start >= message.end {
            return Ok(None);
        }
        self.fields += 1;
        if self.fields > MAX_FIELDS {
            return Err(WalkError::Endless);
        }
        let start = message.start;
        self.seek(start)?;
        let tag = self.varint(message.end)?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint(message.end)?),
            1 => self.skip(8, message.end).map(|_| Value::Fixed)?,
            2 => {
                let len = self.varint(message.end)?;
                Value::Bytes(self.skip(len, message.end)?)
            }
            5 => self.skip(4, message.end).map(|_| Value::Fixed)?,
            _ => return Err(WalkError::Malformed { at: start }),
        };
        let end = match &value {
            Value::Bytes(bytes) => bytes.end,
            Value::Number(_) | Value::Fixed => self.at,
        };
        if tag >> 3 == 0 {
            return Err(WalkError::Malformed { at: start });
        }
        message.start = end;
        Ok(Some(Field { number: tag >> 3, value, whole: start..end }))
    }

    /// Read the bytes of a small field.
    pub(super) fn read(&mut self, bytes: &Range<u64>, most: u64) -> Result<Vec<u8>, WalkError> {
        let (at, len) = (bytes.start, bytes.end - bytes.start);
        if len > most {
            return Err(WalkError::Long { at, len, most });
        }
        self.seek(at)?;
        // `most` is small, so the length fits.
        let mut buffer = vec![0; usize::try_from(len).unwrap_or(0)];
        self.file.read_exact(&mut buffer).map_err(WalkError::Io)?;
        self.at = bytes.end;
        Ok(buffer)
    }

    /// Pass over `len` bytes without reading them; where they are.
    fn skip(&mut self, len: u64, end: u64) -> Result<Range<u64>, WalkError> {
        let start = self.at;
        let behind = start.checked_add(len).filter(|behind| *behind <= end);
        let behind = behind.ok_or(WalkError::Cut { at: start })?;
        // The next read seeks; nothing is gained by doing it twice.
        if len <= 8 {
            self.seek(behind)?;
        }
        Ok(start..behind)
    }

    fn seek(&mut self, to: u64) -> Result<(), WalkError> {
        // Within the buffer it costs nothing. Files are shorter than half of what u64 counts.
        let by = i64::try_from(i128::from(to) - i128::from(self.at));
        let by = by.map_err(|error| WalkError::Io(io::Error::other(error)))?;
        self.file.seek_relative(by).map_err(WalkError::Io)?;
        self.at = to;
        Ok(())
    }

    fn varint(&mut self, end: u64) -> Result<u64, WalkError> {
        let start = self.at;
        let mut value = 0_u64;
        // Ten groups of seven bits hold 64 bits.
        for group in 0..10 {
            if self.at >= end {
                return Err(WalkError::Cut { at: start });
            }
            let mut byte = [0];
            self.file.read_exact(&mut byte).map_err(WalkError::Io)?;
            self.at += 1;
            value |= u64::from(byte[0] & 0x7f) << (7 * group);
            if byte[0] & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WalkError::Malformed { at: start })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    fn fields(bytes: &[u8]) -> Result<Vec<Field>, WalkError> {
        let mut walker = Walker::new(Cursor::new(bytes))?;
        let mut message = walker.message();
        let mut fields = Vec::new();
        while let Some(field) = walker.next(&mut message)? {
            fields.push(field);
        }
        Ok(fields)
    }

    #[test]
    fn fields_of_every_kind_are_found_where_they_are() {
        // 1: 300; 2: "abc"; 3: four bytes; 4: eight bytes.
        let bytes = b"\x08\xac\x02\x12\x03abc\x1d....\x21........";
        let found = fields(bytes).unwrap();
        let values: Vec<_> = found.into_iter().map(|f| (f.number, f.value, f.whole)).collect();
        let expected = [
            (1, Value::Number(300), 0..3),
            (2, Value::Bytes(5..8), 3..8),
            (3, Value::Fixed, 8..13),
            (4, Value::Fixed, 13..22),
        ];
        assert_eq!(values, expected);
    }

    #[test]
    fn damage_is_an_error() {
        for bytes in [
            &b"\x12\x04abc"[..],
            b"\x08",
            b"\x0b",
            b"\x00\x00",
            b"\x1d...",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ] {
            assert!(fields(bytes).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end_without_a_panic_and_fields_never_overlap(bytes: Vec<u8>) {
            if let Ok(fields) = fields(&bytes) {
                let ends: Vec<_> = fields.iter().map(|field| field.whole.end).collect();
                prop_assert!(ends.is_sorted());
                prop_assert_eq!(ends.last().copied().unwrap_or(0), bytes.len() as u64);
            }
        }
    }
}
