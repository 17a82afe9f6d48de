//! Datatypes, and what a package says of its inputs and outputs.

use std::fmt;
use std::str::FromStr;

/// Most dimensions that a tensor may have. ONNX Runtime and tract both stay far
/// below; the bound keeps shapes inline and hostile headers short.
pub const MAX_RANK: usize = 16;

/// Element type of a tensor: the Open Inference Protocol's, and BF16.
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

/// One dimension of a specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dim {
    Fixed(u64),
    /// Written `-1`: any size.
    Any,
}

/// Name, datatype and shape of an input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    pub name: String,
    pub datatype: Datatype,
    pub shape: Vec<Dim>,
}

/// A tensor that does not fit its specification.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    #[error("`{name}` has datatype {got}, and the model takes {want}")]
    Datatype { name: String, got: Datatype, want: Datatype },
    #[error("`{name}` has shape {got:?}, and the model takes {want}")]
    Shape { name: String, got: Vec<u64>, want: String },
    #[error("`{0}` is not a datatype: use one of {all}", all = Datatype::ALL.map(Datatype::as_str).join(", "))]
    UnknownDatatype(String),
}

// === impl Datatype ===

impl Datatype {
    /// Every datatype, in the protocol's order.
    pub const ALL: [Self; 14] = [
        Self::Bool,
        Self::Uint8,
        Self::Uint16,
        Self::Uint32,
        Self::Uint64,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Fp16,
        Self::Bf16,
        Self::Fp32,
        Self::Fp64,
        Self::Bytes,
    ];

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

impl FromStr for Datatype {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let found = Self::ALL.into_iter().find(|datatype| datatype.as_str() == text);
        found.ok_or_else(|| SpecError::UnknownDatatype(text.to_owned()))
    }
}

impl serde::Serialize for Datatype {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}

// === impl Dim ===

impl Dim {
    /// The protocol's number: the size, or -1.
    pub fn as_i64(self) -> i64 {
        match self {
            Self::Fixed(size) => i64::try_from(size).unwrap_or(i64::MAX),
            Self::Any => -1,
        }
    }

    /// Whether a tensor's dimension of `size` fits.
    pub fn accepts(self, size: u64) -> bool {
        matches!(self, Self::Any) || self == Self::Fixed(size)
    }
}

impl serde::Serialize for Dim {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_i64(self.as_i64())
    }
}

// === impl TensorSpec ===

impl TensorSpec {
    /// Check a tensor's datatype and shape.
    ///
    /// # Errors
    /// Says which of the two differs, with both values.
    pub fn check(&self, datatype: Datatype, shape: &[u64]) -> Result<(), SpecError> {
        if datatype != self.datatype {
            return Err(SpecError::Datatype {
                name: self.name.clone(),
                got: datatype,
                want: self.datatype,
            });
        }
        let fits = shape.len() == self.shape.len()
            && self.shape.iter().zip(shape).all(|(dim, &size)| dim.accepts(size));
        if fits {
            return Ok(());
        }
        Err(SpecError::Shape {
            name: self.name.clone(),
            got: shape.to_vec(),
            want: self.shape_text(),
        })
    }

    /// The shape as people read it, for instance `[-1, 3, 224, 224]`.
    pub fn shape_text(&self) -> String {
        let dims: Vec<_> = self.shape.iter().map(|dim| dim.as_i64().to_string()).collect();
        format!("[{}]", dims.join(", "))
    }
}

impl serde::Serialize for TensorSpec {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let mut out = s.serialize_struct("TensorSpec", 3)?;
        out.serialize_field("name", &self.name)?;
        out.serialize_field("datatype", &self.datatype)?;
        out.serialize_field("shape", &self.shape)?;
        out.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> TensorSpec {
        TensorSpec {
            name: "x".into(),
            datatype: Datatype::Fp32,
            shape: vec![Dim::Any, Dim::Fixed(3)],
        }
    }

    #[test]
    fn every_datatype_survives_its_spelling() {
        for datatype in Datatype::ALL {
            assert_eq!(datatype.as_str().parse(), Ok(datatype));
        }
        assert!("fp32".parse::<Datatype>().is_err());
    }

    #[test]
    fn a_tensor_is_checked_against_its_specification() {
        assert_eq!(spec().check(Datatype::Fp32, &[7, 3]), Ok(()));
        let wrong = [
            (Datatype::Int32, vec![7, 3]),
            (Datatype::Fp32, vec![7, 4]),
            (Datatype::Fp32, vec![3]),
        ];
        for (datatype, shape) in wrong {
            assert!(spec().check(datatype, &shape).is_err(), "{datatype} {shape:?}");
        }
    }
}
