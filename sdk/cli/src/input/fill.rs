//! Inputs made up for a benchmark: zeros, or numbers that look random and are the same
//! each time. Pure.

use bytes::Bytes;
use wick_nn::Tensor;
use wick_package::{Datatype, Dim, TensorSpec};

/// Largest input that is made up, in bytes. A model that takes more wants real data.
const MAX_FILL: u64 = 1 << 30;

/// Where the numbers start. Any odd number does.
const SEED: u64 = 0x9E37_79B9_7F4A_7C15;

/// Makes inputs by their specification.
#[derive(Debug)]
pub struct Fill {
    /// Zeros if there is no state.
    state: Option<u64>,
    /// Shapes that were asked for, by input.
    shapes: Vec<(String, Vec<u64>)>,
}

// === impl Fill ===

impl Fill {
    /// `shapes` give open dimensions their size; others are 1.
    pub fn new(random: bool, shapes: Vec<(String, Vec<u64>)>) -> Self {
        Self { state: random.then_some(SEED), shapes }
    }

    /// # Errors
    /// The shape that was asked for does not fit, or is too large.
    pub fn tensor(&mut self, spec: &TensorSpec) -> Result<Tensor, String> {
        let shape = self.shape(spec);
        spec.check(spec.datatype, &shape).map_err(|error| error.to_string())?;
        let size = spec.datatype.size().unwrap_or(4) as u64;
        let total = shape.iter().try_fold(size, |total, &dim| total.checked_mul(dim.max(1)));
        if total.is_none_or(|total| total > MAX_FILL) {
            return Err(format!("shape {shape:?} is too large to be made up: give it with -i"));
        }
        let zeros = Tensor::zeros(spec.datatype, &shape).map_err(|error| error.to_string())?;
        if self.state.is_none() || spec.datatype == Datatype::Bytes {
            return Ok(zeros);
        }
        let mut data = Vec::with_capacity(zeros.data().len());
        for _ in 0..zeros.len() {
            self.element(spec.datatype, &mut data);
        }
        Tensor::new(spec.datatype, &shape, Bytes::from(data)).map_err(|error| error.to_string())
    }

    fn shape(&self, spec: &TensorSpec) -> Vec<u64> {
        if let Some((_, shape)) = self.shapes.iter().find(|(name, _)| *name == spec.name) {
            return shape.clone();
        }
        let size = |dim: &Dim| match dim {
            Dim::Fixed(size) => *size,
            Dim::Any => 1,
        };
        spec.shape.iter().map(size).collect()
    }

    /// Floats lie within 0 and 1; integers within 0 and 99, so that indices into small
    /// tables stay valid.
    fn element(&mut self, datatype: Datatype, data: &mut Vec<u8>) {
        let bits = self.next();
        let unit = (bits >> 40) as f32 / (1_u32 << 24) as f32;
        let small = (bits >> 33) % 100;
        match datatype {
            Datatype::Bool => data.push((bits >> 63) as u8),
            Datatype::Fp16 => data.extend(half::f16::from_f32(unit).to_le_bytes()),
            Datatype::Bf16 => data.extend(half::bf16::from_f32(unit).to_le_bytes()),
            Datatype::Fp32 => data.extend(unit.to_le_bytes()),
            Datatype::Fp64 => data.extend(f64::from(unit).to_le_bytes()),
            _ => data.extend(&small.to_le_bytes()[..datatype.size().unwrap_or(0)]),
        }
    }

    /// Marsaglia's xorshift: short, and good enough to keep a model from special cases.
    fn next(&mut self) -> u64 {
        let mut x = self.state.unwrap_or(SEED);
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.state = Some(x);
        x
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(datatype: Datatype) -> TensorSpec {
        TensorSpec { name: "x".into(), datatype, shape: vec![Dim::Any, Dim::Fixed(3)] }
    }

    #[test]
    fn every_datatype_is_filled_in_the_shape_that_was_asked_for() {
        for datatype in Datatype::ALL {
            for random in [false, true] {
                let mut fill = Fill::new(random, vec![("x".into(), vec![4, 3])]);
                let tensor = fill.tensor(&spec(datatype)).unwrap();
                assert_eq!(tensor.shape(), [4, 3], "{datatype}");
            }
        }
        let one = Fill::new(true, vec![]).tensor(&spec(Datatype::Fp32)).unwrap();
        assert_eq!(one.shape(), [1, 3]);
        let values = one.as_slice::<f32>().unwrap();
        assert!(values.iter().all(|value| (0.0..1.0).contains(value)), "{values:?}");
        assert_ne!(values[0], values[1]);
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        for shape in [vec![4, 4], vec![3], vec![u64::MAX, 3], vec![1 << 40, 3]] {
            let mut fill = Fill::new(false, vec![("x".into(), shape)]);
            assert!(fill.tensor(&spec(Datatype::Fp32)).is_err());
        }
    }
}
