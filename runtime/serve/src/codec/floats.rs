//! The numbers of a JSON array, read in one pass: most of the time that a large request in
//! JSON takes.
//!
//! It reads only what is as it should be: an array of numbers, flat or nested as the shape
//! is. Anything else is left to [`super::data`], which says what is wrong with it.

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

/// The elements of `text`, which is valid JSON. None if they are not numbers that a tensor
/// of this shape holds.
pub(super) fn read<T>(
    text: &str,
    shape: &[u64],
    narrow: impl Fn(f64) -> Option<T>,
) -> Option<Vec<T>> {
    let count = element_count(Datatype::Fp64, shape).ok()?;
    let count = usize::try_from(count).ok().filter(|&count| count <= text.len() / SHORTEST + 1)?;
    let mut values = Vec::with_capacity(count);
    let mut nest = Nest::of(shape)?;
    let mut rest = text.as_bytes();
    while let Some(&byte) = rest.first() {
        match byte {
            b',' | b' ' | b'\n' | b'\r' | b'\t' => rest = &rest[1..],
            b'[' => {
                nest.open()?;
                rest = &rest[1..];
            }
            b']' => {
                nest.close()?;
                rest = &rest[1..];
            }
            b'-' | b'0'..=b'9' => {
                let before = values.len();
                rest = numbers(rest, count, &narrow, &mut values)?;
                nest.elements(values.len() - before)?;
            }
            _ => return None,
        }
    }
    (values.len() == count).then_some(values)
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
        values.push(narrow(value)?);
        rest = &rest[len..];
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

    fn any(value: f64) -> Option<f64> {
        Some(value)
    }

    #[track_caller]
    fn check(text: &str, shape: &[u64], want: Option<&[f64]>) {
        assert_eq!(read(text, shape, any).as_deref(), want, "{text} as {shape:?}");
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
            prop_assert_eq!(read(&text, &shape, any), Some(values));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[-\\[\\],.0-9eE+ \\n\"a]{0,40}") {
            for shape in [&[][..], &[0], &[3], &[2, 2], &[1, 2, 1]] {
                _ = read(&text, shape, any);
            }
        }
    }
}
