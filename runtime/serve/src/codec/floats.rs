//! The numbers of a JSON array, read in one pass: most of the time that a large request in
//! JSON takes.
//!
//! It takes only what is as it should be: valid JSON, an array of numbers, flat or nested as
//! the shape is. Anything else is left to [`super::data`], which says what is wrong with it.

use wick_nn::{MAX_RANK, element_count};
use wick_package::Datatype;

/// Shortest JSON text of an element with its comma, in bytes: what bounds the allocation.
const SHORTEST: usize = 2;

/// Where in the arrays the reader is.
struct Nest<'s> {
    shape: &'s [u64],
    depth: usize,
    /// Members so far of the array at each depth.
    members: [u64; MAX_RANK],
    /// The depth that elements are at, known from the first one on.
    leaf: Option<usize>,
}

/// What may come next in an array.
#[derive(Clone, Copy, PartialEq)]
enum Next {
    /// A value.
    Value,
    /// A value, or the end of the array that has just begun.
    First,
    /// A comma, or the end of the array.
    Comma,
}

/// The elements of `text`. None if it is not an array of numbers that a tensor of this shape
/// holds. `narrow` refuses infinity: it is what a number too large for JSON's is read as.
pub(super) fn read<T>(
    text: &[u8],
    shape: &[u64],
    narrow: impl Fn(f64) -> Option<T>,
) -> Option<Vec<T>> {
    let count = element_count(Datatype::Fp64, shape).ok()?;
    let count = usize::try_from(count).ok().filter(|&count| count <= text.len() / SHORTEST + 1)?;
    let mut values = Vec::with_capacity(count);
    let (mut nest, mut next, mut rest) = (Nest::of(shape)?, Next::Value, text);
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, next) {
            (b' ' | b'\n' | b'\r' | b'\t', _) => {}
            (b',', Next::Comma) if nest.depth > 0 => next = Next::Value,
            (b'[', Next::Value | Next::First) => {
                nest.open()?;
                next = Next::First;
            }
            (b']', Next::Comma | Next::First) => {
                nest.close()?;
                next = Next::Comma;
            }
            (b'-' | b'0'..=b'9', Next::Value | Next::First) => {
                let before = values.len();
                let numbers_begin = &text[text.len() - rest.len() - 1..];
                rest = numbers(numbers_begin, count, &narrow, &mut values)?;
                nest.elements(values.len() - before)?;
                next = Next::Comma;
            }
            _ => return None,
        }
    }
    (values.len() == count && nest.depth == 0 && next == Next::Comma).then_some(values)
}

/// Read numbers as long as they follow each other, at most as many as make `count` values:
/// what comes after them.
fn numbers<'t, T>(
    mut rest: &'t [u8],
    count: usize,
    narrow: &impl Fn(f64) -> Option<T>,
    values: &mut Vec<T>,
) -> Option<&'t [u8]> {
    while values.len() < count {
        let (value, len) = fast_float2::parse_partial::<f64, _>(rest).ok()?;
        let (number, after) = rest.split_at_checked(len)?;
        is_json(number).then_some(())?;
        values.push(narrow(value)?);
        rest = after;
        // As nearly all clients write it.
        match rest {
            [b',', b'-' | b'0'..=b'9', ..] => rest = &rest[1..],
            [b',', b' ', b'-' | b'0'..=b'9', ..] => rest = &rest[2..],
            _ => return Some(rest),
        }
    }
    // One number too many.
    None
}

/// Whether a number is one in JSON, too, which wants digits before and after the point and
/// no zeros in front.
fn is_json(number: &[u8]) -> bool {
    let digits = number.strip_prefix(b"-").unwrap_or(number);
    let whole = match digits {
        [b'0', b'0'..=b'9', ..] => return false,
        [b'0'..=b'9', ..] => digits.iter().position(|byte| !byte.is_ascii_digit()),
        _ => return false,
    };
    match whole.map(|end| &digits[end..]) {
        Some([b'.', after, ..]) => after.is_ascii_digit(),
        Some([b'.']) => false,
        _ => true,
    }
}

// === impl Nest ===

impl<'s> Nest<'s> {
    fn of(shape: &'s [u64]) -> Option<Self> {
        let known = shape.len() <= MAX_RANK;
        known.then_some(Self { shape, depth: 0, members: [0; MAX_RANK], leaf: None })
    }

    fn open(&mut self) -> Option<()> {
        if let Some(outer) = self.depth.checked_sub(1) {
            self.members[outer] += 1;
        }
        *self.members.get_mut(self.depth)? = 0;
        self.depth += 1;
        (self.depth <= self.shape.len().max(1)).then_some(())
    }

    fn elements(&mut self, count: usize) -> Option<()> {
        let rank = self.shape.len();
        match self.leaf {
            Some(leaf) if leaf == self.depth => {}
            None if self.depth > 0 && (self.depth == 1 || self.depth == rank) => {
                self.leaf = Some(self.depth);
            }
            _ => return None,
        }
        self.members[self.depth - 1] += count as u64;
        Some(())
    }

    fn close(&mut self) -> Option<()> {
        self.depth = self.depth.checked_sub(1)?;
        // A flat array's number of elements is checked as that of all.
        let nested = self.leaf.is_some_and(|leaf| leaf > 1);
        let whole = !nested || self.members[self.depth] == self.shape[self.depth];
        whole.then_some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn finite(value: f64) -> Option<f64> {
        value.is_finite().then_some(value)
    }

    #[track_caller]
    fn check(text: &str, shape: &[u64], want: Option<&[f64]>) {
        let got = read(text.as_bytes(), shape, finite);
        assert_eq!(got.as_deref(), want, "{text} as {shape:?}");
    }

    #[test]
    fn numbers_are_read_flat_or_nested_as_the_shape() {
        check("[1, -2.5,3e2]", &[3], Some(&[1.0, -2.5, 300.0]));
        check("[[1,2],[3,4]]", &[2, 2], Some(&[1.0, 2.0, 3.0, 4.0]));
        check("[1,2,3,4]", &[2, 2], Some(&[1.0, 2.0, 3.0, 4.0]));
        check("[[[1],[2]]]", &[1, 2, 1], Some(&[1.0, 2.0]));
        check("[7]", &[], Some(&[7.0]));
        check("[]", &[0], Some(&[]));
        check("[0.1234567890123456789]", &[1], Some(&[0.123_456_789_012_345_68]));
    }

    #[test]
    fn what_is_not_as_it_should_be_is_left_alone() {
        for (text, shape) in [
            ("[1,2]", &[3][..]),
            ("[1,2,3,4]", &[3]),
            ("[[1,2,3],[4]]", &[2, 2]),
            ("[[1,2],3,4]", &[2, 2]),
            ("[[1],[2]]", &[1, 2, 1]),
            ("[[1]]", &[1]),
            ("7", &[]),
            ("[true]", &[1]),
            ("[\"1\"]", &[1]),
            ("[null]", &[1]),
            ("[01]", &[1]),
            ("[1.]", &[1]),
            ("[.5]", &[1]),
            ("[+1]", &[1]),
            ("[-]", &[1]),
            ("[1e]", &[1]),
            ("[1.e5]", &[1]),
            ("[1e310]", &[1]),
            ("[1,]", &[1]),
            ("[,1]", &[1]),
            ("[1 2]", &[2]),
            ("[1,,2]", &[2]),
            ("[1]]", &[1]),
            ("[1][", &[1]),
            ("[[1]", &[1, 1]),
            ("[-inf]", &[1]),
            ("[NaN]", &[1]),
            ("{}", &[1]),
            ("[[]]", &[u64::MAX, u64::MAX]),
        ] {
            check(text, shape, None);
        }
    }

    proptest! {
        #[test]
        fn values_are_those_that_were_written(
            values in prop::collection::vec(prop::num::f64::NORMAL, 0..40),
        ) {
            let text = serde_json::to_string(&values).unwrap();
            let shape = [values.len() as u64];
            prop_assert_eq!(read(text.as_bytes(), &shape, finite), Some(values));
        }

        /// Whatever it takes is valid JSON.
        #[test]
        fn what_serde_refuses_is_left_to_it(
            text in "\\[?(-?[0-9]{0,2}\\.?[0-9]{0,2}([eE][+-]?[0-9]{0,2})?[ ,\\]\\[]{0,2}){0,4}\\]?",
        ) {
            let valid = serde_json::from_str::<serde_json::Value>(&text).is_ok();
            for shape in [&[][..], &[0], &[1], &[2], &[3], &[2, 1], &[1, 2]] {
                let taken = read(text.as_bytes(), shape, finite).is_some();
                prop_assert!(valid || !taken, "{text} as {shape:?}");
            }
        }
    }
}
