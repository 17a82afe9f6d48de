//! Which shape some elements have, by a specification with open dimensions. Pure.

use wick_package::Dim;

/// Find the shape of `count` elements: open dimensions are 1, except for the last, which
/// takes the rest.
///
/// # Errors
/// Says which numbers of elements would fit.
pub fn resolve(dims: &[Dim], count: u64) -> Result<Vec<u64>, String> {
    let fixed = dims.iter().map(|dim| match dim {
        Dim::Fixed(size) => *size,
        Dim::Any => 1,
    });
    let step = fixed.clone().try_fold(1_u64, u64::checked_mul).ok_or("its shape overflows")?;
    let mut shape: Vec<u64> = fixed.collect();
    match dims.iter().rposition(|dim| *dim == Dim::Any) {
        Some(open) if step > 0 && count.is_multiple_of(step) => shape[open] = count / step,
        Some(_) => return Err(format!("{count} elements are not a multiple of {step}")),
        None if count == step => {}
        None => return Err(format!("{count} elements were given, and it takes {step}")),
    }
    Ok(shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: Dim = Dim::Any;
    const TWO: Dim = Dim::Fixed(2);

    #[test]
    fn the_last_open_dimension_takes_the_rest() {
        assert_eq!(resolve(&[ANY], 5), Ok(vec![5]));
        assert_eq!(resolve(&[ANY, TWO], 6), Ok(vec![3, 2]));
        assert_eq!(resolve(&[ANY, ANY], 6), Ok(vec![1, 6]));
        assert_eq!(resolve(&[TWO, TWO], 4), Ok(vec![2, 2]));
        assert_eq!(resolve(&[], 1), Ok(vec![]));
        assert_eq!(resolve(&[ANY], 0), Ok(vec![0]));
    }

    #[test]
    fn counts_that_do_not_fit_are_errors() {
        assert!(resolve(&[ANY, TWO], 5).is_err());
        assert!(resolve(&[TWO], 3).is_err());
        assert!(resolve(&[ANY, Dim::Fixed(0)], 3).is_err());
        assert!(resolve(&[Dim::Fixed(u64::MAX), TWO], 3).is_err());
    }
}
