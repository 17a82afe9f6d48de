//! What the model sees of a file.

/// Bytes that are read at each end of a file.
pub const BLOCK: u64 = 4096;

/// Values at each end.
const END: usize = 1024;

/// Values that the model takes.
pub const FEATURES: usize = 2 * END;

/// Stands for "no byte here".
const PADDING: i32 = 256;

/// Fewer bytes than this, white space not counted, are not worth asking for.
const MIN_BYTES: usize = 8;

/// The ends of a file, as the model takes them.
#[derive(Debug, Clone)]
pub struct Features([i32; FEATURES]);

// === impl Features ===

impl Features {
    /// From the first and the last block; both are the whole of a short file. None if
    /// there is too little in it for the model.
    pub(crate) fn of(first: &[u8], last: &[u8]) -> Option<Self> {
        // All six that C's `isspace` knows: Python's `strip` takes the vertical tab too,
        // which Rust's `trim_ascii` leaves.
        let is_space = |byte: &u8| matches!(byte, b' ' | b'\t'..=b'\r');
        let start = first.iter().position(|byte| !is_space(byte)).unwrap_or(first.len());
        let first = &first[start..];
        if first.len() < MIN_BYTES {
            return None;
        }
        let end = last.iter().rposition(|byte| !is_space(byte)).map_or(0, |at| at + 1);
        let last = &last[end.saturating_sub(END)..end];

        let mut values = [PADDING; FEATURES];
        for (value, &byte) in values.iter_mut().zip(&first[..first.len().min(END)]) {
            *value = i32::from(byte);
        }
        for (value, &byte) in values.iter_mut().rev().zip(last.iter().rev()) {
            *value = i32::from(byte);
        }
        Some(Self(values))
    }

    pub fn values(&self) -> &[i32] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_file_is_padded_after_its_start_and_before_its_end() {
        let features = Features::of(b" \n\x0bshort text\n", b" \n\x0bshort text\n").unwrap();
        let values = features.values();
        assert_eq!(values[..11], *b"short text\n".map(i32::from).as_slice());
        assert_eq!(values[11..FEATURES - 13], [PADDING; FEATURES - 24]);
        assert_eq!(values[FEATURES - 13..], *b" \n\x0bshort text".map(i32::from).as_slice());
    }

    #[test]
    fn of_a_long_file_the_outermost_kilobytes_are_taken() {
        let first = [1; BLOCK as usize];
        let last = [2; BLOCK as usize];
        let features = Features::of(&first, &last).unwrap();
        assert_eq!(features.values(), [[1; END], [2; END]].concat());
    }

    #[test]
    fn fewer_than_eight_bytes_are_too_few() {
        assert!(Features::of(b"   1234567", b"   1234567").is_none());
        assert!(Features::of(b"   12345678", b"   12345678").is_some());
        assert!(Features::of(b" \t\r\n\x0b\x0c", b" \t\r\n\x0b\x0c").is_none());
    }
}
