//! Element types of tensors, as the Open Inference Protocol names them.

use std::fmt;

use half::{bf16, f16};

/// Element type of a [`Tensor`](crate::Tensor).
///
/// ```
/// use wick_guest::{Datatype, Tensor};
///
/// let tensor = Tensor::new(&[2], [1.5_f32, 2.5])?;
/// assert_eq!(tensor.datatype(), Datatype::Fp32);
/// assert_eq!(Datatype::Fp32.to_string(), "FP32");
/// assert_eq!(Datatype::Bytes.size(), None);
/// # Ok::<(), wick_guest::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Datatype {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp16,
    Bf16,
    Fp32,
    Fp64,
    /// Byte strings of any length.
    Bytes,
}

/// Rust types that are elements of a tensor: the integers, `f32`, `f64`, [`struct@f16`],
/// [`bf16`] and `bool`. Strings have functions of their own.
pub trait Element: bytemuck::NoUninit + bytemuck::CheckedBitPattern + sealed::Sealed {
    /// The datatype of a tensor of these.
    const DATATYPE: Datatype;
}

mod sealed {
    /// Keeps [`Element`](super::Element) to the types whose bytes the host knows.
    pub trait Sealed {}
}

macro_rules! elements {
    ($($type:ty => $datatype:ident),* $(,)?) => {
        $(
            impl sealed::Sealed for $type {}
            impl Element for $type {
                const DATATYPE: Datatype = Datatype::$datatype;
            }
        )*
    };
}

elements! {
    bool => Bool,
    u8 => Uint8, u16 => Uint16, u32 => Uint32, u64 => Uint64,
    i8 => Int8, i16 => Int16, i32 => Int32, i64 => Int64,
    f16 => Fp16, bf16 => Bf16, f32 => Fp32, f64 => Fp64,
}

// Elements are copied to and from the little-endian bytes of a tensor as they are.
#[cfg(target_endian = "big")]
compile_error!("wick-guest needs a little-endian target");

// === impl Datatype ===

impl Datatype {
    /// The protocol's spelling, for instance `FP32`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Uint8 => "UINT8",
            Self::Uint16 => "UINT16",
            Self::Uint32 => "UINT32",
            Self::Uint64 => "UINT64",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Fp16 => "FP16",
            Self::Bf16 => "BF16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
            Self::Bytes => "BYTES",
        }
    }

    /// Bytes of one element; none for BYTES, whose elements differ in length.
    pub const fn size(self) -> Option<usize> {
        Some(match self {
            Self::Bool | Self::Uint8 | Self::Int8 => 1,
            Self::Uint16 | Self::Int16 | Self::Fp16 | Self::Bf16 => 2,
            Self::Uint32 | Self::Int32 | Self::Fp32 => 4,
            Self::Uint64 | Self::Int64 | Self::Fp64 => 8,
            Self::Bytes => return None,
        })
    }
}

impl fmt::Display for Datatype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
