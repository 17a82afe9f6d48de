//! The metadata properties of an ONNX file. The file is a protobuf message; only its top
//! level is walked, so a large model costs no more than a small one.

/// Field numbers in onnx.proto: `ModelProto.metadata_props`, and the two of
/// `StringStringEntryProto`.
const METADATA_PROPS: u64 = 14;
const KEY: u64 = 1;
const VALUE: u64 = 2;

/// A field that holds bytes: its number and what it holds.
type Field<'a> = (u64, &'a [u8]);

/// The value of a property; none if it is absent or the file is damaged.
pub fn property<'a>(model: &'a [u8], name: &str) -> Option<&'a [u8]> {
    Fields(model).filter(|(number, _)| *number == METADATA_PROPS).find_map(|(_, entry)| {
        let key = Fields(entry).find(|(number, _)| *number == KEY)?.1;
        let value = Fields(entry).find(|(number, _)| *number == VALUE)?.1;
        (key == name.as_bytes()).then_some(value)
    })
}

/// The fields of a message that hold bytes, others skipped. It ends at the first damage.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        loop {
            let tag = varint(&mut self.0)?;
            let skip = match tag & 7 {
                0 => varint(&mut self.0).map(|_| 0)?,
                1 => 8,
                2 => usize::try_from(varint(&mut self.0)?).ok()?,
                5 => 4,
                _ => return None,
            };
            let (bytes, rest) = self.0.split_at_checked(skip)?;
            self.0 = rest;
            if tag & 7 == 2 {
                return Some((tag >> 3, bytes));
            }
        }
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    // 10 groups of 7 bits hold 64 bits.
    for group in 0..10 {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << (7 * group);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ir_version 8, a graph of 3 bytes, then the properties `a` = `x` and `b` = `yz`.
    const MODEL: &[u8] =
        b"\x08\x08\x3a\x03abc\x72\x06\x0a\x01a\x12\x01x\x72\x07\x0a\x01b\x12\x02yz";

    #[test]
    fn a_property_is_found_behind_other_fields() {
        assert_eq!(property(MODEL, "a"), Some(&b"x"[..]));
        assert_eq!(property(MODEL, "b"), Some(&b"yz"[..]));
        assert_eq!(property(MODEL, "c"), None);
    }

    #[test]
    fn a_damaged_file_has_no_property_and_does_not_panic() {
        for len in 0..MODEL.len() {
            assert_eq!(property(&MODEL[..len], "b"), None, "{len} bytes");
        }
        assert_eq!(property(&[0xff; 32], "b"), None);
    }
}
