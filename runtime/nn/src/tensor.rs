//! Tensors in host memory: immutable, shared, checked once when they are made.

use std::fmt;

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;
use wick_package::Datatype;

/// Most dimensions of a tensor.
pub const MAX_RANK: usize = 16;

/// Most bytes of a tensor: far above any real one, far below an overflow.
pub const MAX_TENSOR_BYTES: u64 = 1 << 40;

/// Sizes of the dimensions, outermost first. Empty for a scalar.
pub type Shape = SmallVec<[u64; 6]>;

/// A tensor: datatype, shape and row-major little-endian bytes.
///
/// Cloning shares the bytes. BOOL is one byte an element. BYTES elements are each
/// a 32-bit little-endian length and that many bytes, one after another, as in the
/// protocol's binary form.
//
// Invariants: the data's length fits datatype and shape; data of fixed-size
// elements is aligned to the element's size; BYTES elements fill the data exactly.
#[derive(Clone, PartialEq, Eq)]
pub struct Tensor {
    datatype: Datatype,
    shape: Shape,
    data: Bytes,
}

/// Bytes and a shape that are not a tensor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    #[error("shape {0:?} has more than {MAX_RANK} dimensions")]
    Rank(Vec<u64>),
    #[error("shape {shape:?} of {datatype} is larger than {MAX_TENSOR_BYTES} bytes")]
    TooLarge { datatype: Datatype, shape: Vec<u64> },
    #[error("shape {shape:?} of {datatype} needs {want} bytes, and {got} were given")]
    Length { datatype: Datatype, shape: Vec<u64>, want: u64, got: u64 },
    #[error("BYTES data of shape {shape:?} breaks off or goes on at byte {at}")]
    Strings { shape: Vec<u64>, at: usize },
    #[error("BOOL data holds the byte {value}; only 0 and 1 are allowed")]
    Bool { value: u8 },
}

/// Rust types that are elements of a tensor.
pub trait Element: bytemuck::Pod + Send + Sync {
    const DATATYPE: Datatype;
}

macro_rules! elements {
    ($($type:ty => $datatype:ident),* $(,)?) => {
        $(impl Element for $type { const DATATYPE: Datatype = Datatype::$datatype; })*
    };
}

elements! {
    u8 => Uint8, u16 => Uint16, u32 => Uint32, u64 => Uint64,
    i8 => Int8, i16 => Int16, i32 => Int32, i64 => Int64,
    half::f16 => Fp16, half::bf16 => Bf16, f32 => Fp32, f64 => Fp64,
}

// === impl Tensor ===

impl Tensor {
    /// Check `data` against datatype and shape. Copies only if the data is not
    /// aligned to its element size.
    ///
    /// # Errors
    /// The length does not fit, the shape is too large, or BYTES or BOOL data is
    /// malformed.
    pub fn new(datatype: Datatype, shape: &[u64], data: Bytes) -> Result<Self, TensorError> {
        let count = element_count(datatype, shape)?;
        match datatype.size() {
            Some(size) => {
                let want = count * size as u64;
                let got = data.len() as u64;
                if want != got {
                    let shape = shape.to_vec();
                    return Err(TensorError::Length { datatype, shape, want, got });
                }
            }
            None => check_strings(shape, count, &data)?,
        }
        if datatype == Datatype::Bool
            && let Some(&value) = data.iter().find(|&&byte| byte > 1)
        {
            return Err(TensorError::Bool { value });
        }
        Ok(Self { datatype, shape: Shape::from_slice(shape), data: aligned(datatype, data) })
    }

    /// A tensor of Rust numbers.
    ///
    /// # Errors
    /// The number of elements does not fit the shape.
    pub fn from_vec<T: Element>(shape: &[u64], values: Vec<T>) -> Result<Self, TensorError> {
        struct Owner<T>(Vec<T>);
        impl<T: bytemuck::NoUninit> AsRef<[u8]> for Owner<T> {
            fn as_ref(&self) -> &[u8] {
                bytemuck::cast_slice(&self.0)
            }
        }
        Self::new(T::DATATYPE, shape, Bytes::from_owner(Owner(values)))
    }

    /// A BYTES tensor.
    ///
    /// # Errors
    /// The number of elements does not fit the shape.
    pub fn from_strings<S: AsRef<[u8]>>(shape: &[u64], values: &[S]) -> Result<Self, TensorError> {
        let size: usize = values.iter().map(|value| 4 + value.as_ref().len()).sum();
        let mut data = BytesMut::with_capacity(size);
        for value in values {
            let value = value.as_ref();
            let too_large =
                || TensorError::TooLarge { datatype: Datatype::Bytes, shape: shape.to_vec() };
            let len = u32::try_from(value.len()).map_err(|_| too_large())?;
            data.extend_from_slice(&len.to_le_bytes());
            data.extend_from_slice(value);
        }
        Self::new(Datatype::Bytes, shape, data.freeze())
    }

    /// All zeros; empty strings for BYTES.
    ///
    /// # Errors
    /// The shape is too large.
    pub fn zeros(datatype: Datatype, shape: &[u64]) -> Result<Self, TensorError> {
        let count = element_count(datatype, shape)?;
        let size = count * datatype.size().unwrap_or(4) as u64;
        let too_large = |_| TensorError::TooLarge { datatype, shape: shape.to_vec() };
        let len = usize::try_from(size).map_err(too_large)?;
        Self::new(datatype, shape, Bytes::from(vec![0; len]))
    }

    pub fn datatype(&self) -> Datatype {
        self.datatype
    }

    /// Sizes of the dimensions, outermost first.
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// The data in the form that [`Tensor::new`] takes.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// Number of elements.
    pub fn len(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Whether some dimension is zero.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements as Rust numbers; none for another datatype.
    pub fn as_slice<T: Element>(&self) -> Option<&[T]> {
        (self.datatype == T::DATATYPE).then(|| bytemuck::cast_slice(&self.data))
    }

    /// The elements of a BYTES tensor; none for another datatype.
    pub fn strings(&self) -> Option<impl Iterator<Item = &[u8]>> {
        if self.datatype != Datatype::Bytes {
            return None;
        }
        let mut rest: &[u8] = &self.data;
        Some(std::iter::from_fn(move || {
            let (len, tail) = rest.split_first_chunk::<4>()?;
            let (value, tail) = tail.split_at(u32::from_le_bytes(*len) as usize);
            rest = tail;
            Some(value)
        }))
    }

    /// The same data in another shape with as many elements.
    ///
    /// # Errors
    /// The number of elements differs.
    pub fn reshaped(&self, shape: &[u64]) -> Result<Self, TensorError> {
        Self::new(self.datatype, shape, self.data.clone())
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.datatype, self.shape.as_slice())
    }
}

/// Number of elements, with the shape's rank and total size bounded before
/// anything is allocated for it.
///
/// # Errors
/// Too many dimensions or a product over `MAX_TENSOR_BYTES`.
pub fn element_count(datatype: Datatype, shape: &[u64]) -> Result<u64, TensorError> {
    if shape.len() > MAX_RANK {
        return Err(TensorError::Rank(shape.to_vec()));
    }
    // A zero in the shape must not hide an overflow of the other dimensions, so
    // the bound is checked on their product with zeros taken as one.
    let size = datatype.size().unwrap_or(4) as u64;
    let bound = shape.iter().try_fold(size, |total, &dim| total.checked_mul(dim.max(1)));
    match bound {
        Some(total) if total <= MAX_TENSOR_BYTES => Ok(shape.iter().product()),
        _ => Err(TensorError::TooLarge { datatype, shape: shape.to_vec() }),
    }
}

fn check_strings(shape: &[u64], count: u64, data: &[u8]) -> Result<(), TensorError> {
    let broken = |at| TensorError::Strings { shape: shape.to_vec(), at };
    let mut at = 0;
    for _ in 0..count {
        let rest = &data[at..];
        let (len, tail) = rest.split_first_chunk::<4>().ok_or_else(|| broken(at))?;
        let len = u32::from_le_bytes(*len) as usize;
        if tail.len() < len {
            return Err(broken(at));
        }
        at += 4 + len;
    }
    if at == data.len() { Ok(()) } else { Err(broken(at)) }
}

fn aligned(datatype: Datatype, data: Bytes) -> Bytes {
    let size = datatype.size().unwrap_or(1);
    if data.as_ptr().align_offset(size) == 0 {
        return data;
    }
    // An owned copy is aligned only as far as its element type says, so it is
    // made of 64-bit words, the largest element.
    struct Words {
        words: Vec<u64>,
        len: usize,
    }
    impl AsRef<[u8]> for Words {
        fn as_ref(&self) -> &[u8] {
            &bytemuck::cast_slice(&self.words)[..self.len]
        }
    }
    let mut words = vec![0_u64; data.len().div_ceil(8)];
    bytemuck::cast_slice_mut(&mut words)[..data.len()].copy_from_slice(&data);
    Bytes::from_owner(Words { words, len: data.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_must_fit_the_shape() {
        assert!(Tensor::new(Datatype::Fp32, &[2, 2], Bytes::from(vec![0; 16])).is_ok());
        let short = Tensor::new(Datatype::Fp32, &[2, 2], Bytes::from(vec![0; 15]));
        assert!(matches!(short, Err(TensorError::Length { want: 16, got: 15, .. })));
        assert!(Tensor::new(Datatype::Fp32, &[], Bytes::from(vec![0; 4])).is_ok());
    }

    #[test]
    fn a_shape_whose_product_overflows_is_refused_even_with_a_zero() {
        for shape in [&[u64::MAX, 2][..], &[1, 1 << 62], &[0, u64::MAX, u64::MAX]] {
            let tensor = Tensor::new(Datatype::Uint8, shape, Bytes::new());
            assert!(matches!(tensor, Err(TensorError::TooLarge { .. })), "{shape:?}");
        }
    }

    #[test]
    fn misaligned_data_is_copied_to_aligned_memory() {
        let bytes = Bytes::from(vec![1_u8; 33]).slice(1..);
        let tensor = Tensor::new(Datatype::Fp64, &[4], bytes).unwrap();
        assert_eq!(tensor.as_slice::<f64>().unwrap().len(), 4);
        assert_eq!(tensor.as_slice::<f32>(), None);
    }

    #[test]
    fn strings_are_walked_exactly() {
        let tensor = Tensor::from_strings(&[2], &["ab", ""]).unwrap();
        assert_eq!(tensor.strings().unwrap().collect::<Vec<_>>(), [&b"ab"[..], b""]);
        let data = tensor.data();
        for cut in [data.slice(..3), data.slice(..data.len() - 1)] {
            assert!(Tensor::new(Datatype::Bytes, &[2], cut).is_err());
        }
        assert!(Tensor::new(Datatype::Bytes, &[1], data.clone()).is_err());
    }

    #[test]
    fn bool_is_zero_or_one() {
        assert!(Tensor::new(Datatype::Bool, &[2], Bytes::from_static(&[0, 1])).is_ok());
        assert!(Tensor::new(Datatype::Bool, &[1], Bytes::from_static(&[2])).is_err());
    }
}
