//! Joins tensors along their first dimension and takes the result apart again.

use bytes::BytesMut;

use super::Signature;
use crate::tensor::{Shape, Tensor, TensorError};

/// Rows of a request, and what it can be joined by. None if its inputs don't have
/// one number of rows.
pub(super) fn rows_and_signature(inputs: &[Tensor]) -> Option<(u64, Signature)> {
    let rows = *inputs.first()?.shape().first()?;
    let same = inputs.iter().all(|input| input.shape().first() == Some(&rows));
    let tails = inputs.iter().map(|input| Shape::from_slice(&input.shape()[1..]));
    same.then(|| (rows, tails.collect()))
}

/// One tensor of all rows. The parts have the same datatype, and the same shape but
/// for their first dimension.
pub(super) fn join<'t>(
    parts: impl Iterator<Item = &'t Tensor> + Clone,
) -> Result<Option<Tensor>, TensorError> {
    let Some(first) = parts.clone().next() else { return Ok(None) };
    let rows = parts.clone().map(|part| part.shape()[0]).sum();
    let mut shape = Shape::from_slice(first.shape());
    shape[0] = rows;
    let mut data = BytesMut::with_capacity(parts.clone().map(|part| part.data().len()).sum());
    // Row-major elements, strings with their lengths included, simply follow.
    parts.for_each(|part| data.extend_from_slice(part.data()));
    Tensor::new(first.datatype(), &shape, data.freeze()).map(Some)
}

/// The parts of a joined output, without a copy. None if its first dimension is
/// not the sum of `rows`: then the model does not treat rows apart.
pub(super) fn split(output: &Tensor, rows: &[u64]) -> Option<Vec<Tensor>> {
    let total: u64 = rows.iter().sum();
    if total == 0 || output.shape().first() != Some(&total) {
        return None;
    }
    let mut shape = Shape::from_slice(output.shape());
    let row_elements = usize::try_from(shape[1..].iter().product::<u64>()).ok()?;
    let mut ends = row_ends(output, total, row_elements)?;
    let mut at = 0;
    let parts = rows.iter().map(|&count| {
        let end = if count == 0 { at } else { ends.nth(usize::try_from(count).ok()? - 1)? };
        shape[0] = count;
        let part = Tensor::new(output.datatype(), &shape, output.data().slice(at..end)).ok()?;
        at = end;
        Some(part)
    });
    parts.collect()
}

/// Where each row of the data ends.
fn row_ends(
    output: &Tensor,
    total: u64,
    row_elements: usize,
) -> Option<Box<dyn Iterator<Item = usize> + '_>> {
    let total = usize::try_from(total).ok()?;
    if let Some(size) = output.datatype().size() {
        return Some(Box::new((1..=total).map(move |row| row * row_elements * size)));
    }
    let mut strings = output.strings()?;
    let mut at = 0;
    Some(Box::new((0..total).map(move |_| {
        at += strings.by_ref().take(row_elements).map(|text| 4 + text.len()).sum::<usize>();
        at
    })))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(parts: &[Tensor]) {
        let rows: Vec<u64> = parts.iter().map(|part| part.shape()[0]).collect();
        let joined = join(parts.iter()).unwrap().unwrap();
        assert_eq!(joined.shape()[0], rows.iter().sum::<u64>());
        if joined.shape()[0] > 0 {
            assert_eq!(split(&joined, &rows).as_deref(), Some(parts));
        }
    }

    proptest! {
        #[test]
        fn what_was_joined_comes_apart_exactly(
            rows in prop::collection::vec(0_u64..5, 1..8),
            width in 0_u64..4,
        ) {
            let parts = rows.iter().enumerate().map(|(index, &rows)| {
                let values = (0..rows * width).map(|i| i as i16 + 100 * index as i16).collect();
                Tensor::from_vec(&[rows, width], values).unwrap()
            });
            check(&parts.collect::<Vec<_>>());
        }

        #[test]
        fn strings_come_apart_exactly(
            rows in prop::collection::vec(prop::collection::vec("[a-z]{0,5}", 2), 1..8),
            cut in 0_usize..8,
        ) {
            let cut = cut.min(rows.len());
            let part = |rows: &[Vec<String>]| {
                Tensor::from_strings(&[rows.len() as u64, 2], &rows.concat()).unwrap()
            };
            check(&[part(&rows[..cut]), part(&rows[cut..])]);
        }
    }

    #[test]
    fn an_output_with_other_rows_is_not_taken_apart() {
        let output = Tensor::from_vec(&[3], vec![1_u8, 2, 3]).unwrap();
        assert_eq!(split(&output, &[1, 1]), None);
        let scalar = Tensor::from_vec(&[], vec![1_u8]).unwrap();
        assert_eq!(split(&scalar, &[1]), None);
    }

    #[test]
    fn inputs_of_a_request_must_agree_on_their_rows() {
        let tensor = |shape: &[u64]| Tensor::zeros(wick_package::Datatype::Uint8, shape).unwrap();
        let (rows, signature) = rows_and_signature(&[tensor(&[2, 3]), tensor(&[2])]).unwrap();
        assert_eq!((rows, signature.len()), (2, 2));
        assert_eq!(rows_and_signature(&[tensor(&[2]), tensor(&[3])]), None);
        assert_eq!(rows_and_signature(&[tensor(&[])]), None);
        assert_eq!(rows_and_signature(&[]), None);
    }
}
