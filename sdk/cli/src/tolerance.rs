//! How much a device's answer may differ from the CPU's, by datatype. Pure.
//!
//! Devices add in another order and round to other formats on the way: no two answers of
//! floats are the same to the bit. What is counted, named or decided must be.

use wick_nn::Tensor;
use wick_package::Datatype;

/// Part of an output's largest value by which each of its values may differ.
const FP64: f64 = 1e-6;
const FP32: f64 = 2e-3;
const FP16: f64 = 2e-2;

/// Steps by which a quantised value may differ.
const QUANTISED: f64 = 1.0;

/// Below it a largest value counts as this, so that an output of next to nothing may have noise. A network that is
/// sure of "no" answers with the small end of an exponential, where the rounding of all its layers is a large part of
/// what is left: two thousandths of 6e-5 were too little for one processor's text detector, and enough for another's.
/// PyTorch's own comparison lets any two values differ by 1e-5, five times what this comes to in FP32.
const SMALLEST: f64 = 1e-3;

/// How far apart two answers are.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Difference {
    /// The largest between two values at the same place; infinite if shapes differ.
    pub largest: f64,
    /// The most that is within the tolerance.
    pub allowed: f64,
}

// === impl Difference ===

impl Difference {
    pub fn is_within(&self) -> bool {
        self.largest <= self.allowed
    }

    /// Compare an output with what the CPU has answered.
    pub fn between(cpu: &Tensor, device: &Tensor) -> Self {
        const DIFFERENT: Difference = Difference { largest: f64::INFINITY, allowed: 0.0 };
        const SAME: Difference = Difference { largest: 0.0, allowed: 0.0 };
        if cpu.datatype() != device.datatype() || cpu.shape() != device.shape() {
            return DIFFERENT;
        }
        let (Some(expected), Some(found)) = (numbers(cpu), numbers(device)) else {
            return if cpu.data() == device.data() { SAME } else { DIFFERENT };
        };
        let largest = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max);
        let scale = largest(&mut expected.iter().map(|v| v.abs()).filter(|v| v.is_finite()));
        let pairs = expected.iter().zip(&found);
        Self {
            largest: largest(&mut pairs.map(|(&cpu, &device)| apart(cpu, device))),
            allowed: allowed(cpu.datatype(), scale.max(SMALLEST)),
        }
    }
}

fn allowed(datatype: Datatype, scale: f64) -> f64 {
    match datatype {
        Datatype::Fp64 => FP64 * scale,
        Datatype::Fp32 => FP32 * scale,
        Datatype::Fp16 | Datatype::Bf16 => FP16 * scale,
        Datatype::Int8 | Datatype::Uint8 => QUANTISED,
        _ => 0.0,
    }
}

fn apart(cpu: f64, device: f64) -> f64 {
    match (cpu == device, cpu.is_nan(), device.is_nan()) {
        (true, ..) | (_, true, true) => 0.0,
        (_, false, false) => (cpu - device).abs(),
        _ => f64::INFINITY,
    }
}

/// The values of what may differ a little; none for what must be the same.
fn numbers(tensor: &Tensor) -> Option<Vec<f64>> {
    Some(match tensor.datatype() {
        Datatype::Fp64 => tensor.as_slice::<f64>()?.to_vec(),
        Datatype::Fp32 => tensor.as_slice::<f32>()?.iter().map(|&v| f64::from(v)).collect(),
        Datatype::Fp16 => pairs(tensor).map(|bits| half::f16::from_bits(bits).to_f64()).collect(),
        Datatype::Bf16 => pairs(tensor).map(|bits| half::bf16::from_bits(bits).to_f64()).collect(),
        Datatype::Int8 => tensor.as_slice::<i8>()?.iter().map(|&v| f64::from(v)).collect(),
        Datatype::Uint8 => tensor.as_slice::<u8>()?.iter().map(|&v| f64::from(v)).collect(),
        _ => return None,
    })
}

fn pairs(tensor: &Tensor) -> impl Iterator<Item = u16> {
    tensor.data().chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(cpu: &[f32], device: &[f32], within: bool) {
        let tensor = |values: &[f32]| Tensor::from_vec(&[2], values.to_vec()).unwrap();
        let difference = Difference::between(&tensor(cpu), &tensor(device));
        assert_eq!(difference.is_within(), within, "{cpu:?} {device:?} {difference:?}");
    }

    #[test]
    fn floats_may_differ_by_a_part_of_the_largest_and_never_be_lost() {
        check(&[100.0, 0.0], &[100.1, 0.1], true);
        check(&[100.0, 0.0], &[100.3, 0.0], false);
        check(&[0.0, 0.0], &[1e-9, 0.0], true);
        check(&[6e-5, 0.0], &[6.1e-5, 0.0], true);
        check(&[6e-5, 0.0], &[0.0, 0.0], false);
        check(&[0.0, 0.0], &[1e-3, 0.0], false);
        check(&[f32::NAN, 1.0], &[f32::NAN, 1.0], true);
        check(&[f32::INFINITY, 1.0], &[f32::INFINITY, 1.0], true);
        check(&[f32::NAN, 1.0], &[1.0, 1.0], false);
        check(&[f32::INFINITY, 1.0], &[3.0, 1.0], false);
    }

    #[test]
    fn counts_and_shapes_are_the_same_or_wrong() {
        let of = |values: &[i64]| Tensor::from_vec(&[2], values.to_vec()).unwrap();
        assert!(Difference::between(&of(&[1, 2]), &of(&[1, 2])).is_within());
        assert!(!Difference::between(&of(&[1, 2]), &of(&[1, 3])).is_within());
        let wide = Tensor::from_vec(&[1, 2], vec![1_i64, 2]).unwrap();
        assert!(!Difference::between(&of(&[1, 2]), &wide).is_within());
        let bytes = |values: &[u8]| Tensor::from_vec(&[2], values.to_vec()).unwrap();
        assert!(Difference::between(&bytes(&[1, 2]), &bytes(&[2, 2])).is_within());
        assert!(!Difference::between(&bytes(&[1, 2]), &bytes(&[3, 2])).is_within());
    }
}
