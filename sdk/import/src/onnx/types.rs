//! What an ONNX graph says of an input or output, as the Open Inference Protocol says it.
//!
//! The messages are written from onnx.proto, with the fields that are looked at.

use prost::Message;
use wick_package::{Datatype, Dim, MAX_RANK, TensorSpec};

/// A declared input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    pub name: String,
    pub datatype: Datatype,
    /// None where the model does not even tell how many dimensions there are.
    pub shape: Option<Vec<Dim>>,
}

/// A value that no client of the protocol could send or receive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TypeError {
    #[error("`{name}` is a {what}, and the Open Inference Protocol has only tensors")]
    NoTensor { name: String, what: &'static str },
    #[error("`{name}` has the type {what}, which the Open Inference Protocol lacks")]
    Datatype { name: String, what: String },
    #[error("`{name}` has {rank} dimensions, and a tensor has at most {MAX_RANK}")]
    Rank { name: String, rank: usize },
    #[error("what the graph says of an input or output is damaged")]
    Damaged(#[source] prost::DecodeError),
}

#[derive(Clone, PartialEq, Message)]
struct ValueInfo {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    r#type: Option<Type>,
}

#[derive(Clone, PartialEq, Message)]
struct Type {
    #[prost(message, optional, tag = "1")]
    tensor: Option<Tensor>,
    #[prost(message, optional, tag = "4")]
    sequence: Option<Other>,
    #[prost(message, optional, tag = "5")]
    map: Option<Other>,
    #[prost(message, optional, tag = "8")]
    sparse_tensor: Option<Other>,
    #[prost(message, optional, tag = "9")]
    optional: Option<Other>,
}

#[derive(Clone, PartialEq, Message)]
struct Tensor {
    #[prost(int32, tag = "1")]
    elem_type: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<Shape>,
}

#[derive(Clone, PartialEq, Message)]
struct Shape {
    #[prost(message, repeated, tag = "1")]
    dim: Vec<Dimension>,
}

/// A dimension with a name instead of a value is of any size.
#[derive(Clone, PartialEq, Message)]
struct Dimension {
    #[prost(int64, optional, tag = "1")]
    value: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct Other {}

/// Names of the element types in the order of their numbers in onnx.proto.
const ELEMENT_TYPES: [&str; 27] = [
    "UNDEFINED",
    "FLOAT",
    "UINT8",
    "INT8",
    "UINT16",
    "INT16",
    "INT32",
    "INT64",
    "STRING",
    "BOOL",
    "FLOAT16",
    "DOUBLE",
    "UINT32",
    "UINT64",
    "COMPLEX64",
    "COMPLEX128",
    "BFLOAT16",
    "FLOAT8E4M3FN",
    "FLOAT8E4M3FNUZ",
    "FLOAT8E5M2",
    "FLOAT8E5M2FNUZ",
    "UINT4",
    "INT4",
    "FLOAT4E2M1",
    "FLOAT8E8M0",
    "UINT2",
    "INT2",
];

// === impl Declared ===

impl Declared {
    /// Read a `ValueInfoProto`.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, TypeError> {
        let ValueInfo { name, r#type } = ValueInfo::decode(bytes).map_err(TypeError::Damaged)?;
        let Some(r#type) = r#type else {
            return Err(TypeError::NoTensor { name, what: "value without a type" });
        };
        let Some(tensor) = &r#type.tensor else {
            return Err(TypeError::NoTensor { name, what: r#type.what() });
        };
        let Some(datatype) = datatype(tensor.elem_type) else {
            return Err(TypeError::Datatype { name, what: element_type(tensor.elem_type) });
        };
        let shape = tensor.shape.as_ref().map(|shape| shape.dim.iter().map(dim).collect());
        let rank = shape.as_ref().map_or(0, Vec::len);
        if rank > MAX_RANK {
            return Err(TypeError::Rank { name, rank });
        }
        Ok(Self { name, datatype, shape })
    }

    /// As a manifest has it; none without a shape.
    pub fn spec(&self) -> Option<TensorSpec> {
        let shape = self.shape.clone()?;
        Some(TensorSpec { name: self.name.clone(), datatype: self.datatype, shape })
    }
}

// === impl Type ===

impl Type {
    fn what(&self) -> &'static str {
        let kinds = [
            (self.sequence.is_some(), "sequence"),
            (self.map.is_some(), "map"),
            (self.sparse_tensor.is_some(), "sparse tensor"),
            (self.optional.is_some(), "optional value"),
        ];
        kinds.into_iter().find_map(|(is, what)| is.then_some(what)).unwrap_or("value of no type")
    }
}

/// Exporters also write 0 and -1 for what is not fixed.
fn dim(dimension: &Dimension) -> Dim {
    let size = dimension.value.and_then(|value| u64::try_from(value).ok());
    size.filter(|size| *size > 0).map_or(Dim::Any, Dim::Fixed)
}

fn datatype(number: i32) -> Option<Datatype> {
    Some(match element_type(number).as_str() {
        "FLOAT" => Datatype::Fp32,
        "UINT8" => Datatype::Uint8,
        "INT8" => Datatype::Int8,
        "UINT16" => Datatype::Uint16,
        "INT16" => Datatype::Int16,
        "INT32" => Datatype::Int32,
        "INT64" => Datatype::Int64,
        "STRING" => Datatype::Bytes,
        "BOOL" => Datatype::Bool,
        "FLOAT16" => Datatype::Fp16,
        "DOUBLE" => Datatype::Fp64,
        "UINT32" => Datatype::Uint32,
        "UINT64" => Datatype::Uint64,
        "BFLOAT16" => Datatype::Bf16,
        _ => return None,
    })
}

fn element_type(number: i32) -> String {
    let known = usize::try_from(number).ok().and_then(|index| ELEMENT_TYPES.get(index));
    known.map_or_else(|| format!("{number}"), |name| (*name).to_owned())
}

/// Bits of one element in another file; none for text and what has no fixed size.
pub(super) fn bits(number: u64) -> Option<u64> {
    let name = usize::try_from(number).ok().and_then(|index| ELEMENT_TYPES.get(index))?;
    Some(match *name {
        "UINT2" | "INT2" => 2,
        "UINT4" | "INT4" | "FLOAT4E2M1" => 4,
        "UINT8" | "INT8" | "BOOL" | "FLOAT8E4M3FN" | "FLOAT8E4M3FNUZ" | "FLOAT8E5M2"
        | "FLOAT8E5M2FNUZ" | "FLOAT8E8M0" => 8,
        "UINT16" | "INT16" | "FLOAT16" | "BFLOAT16" => 16,
        "FLOAT" | "INT32" | "UINT32" => 32,
        "DOUBLE" | "INT64" | "UINT64" | "COMPLEX64" => 64,
        "COMPLEX128" => 128,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(number: i32, dims: Option<&[i64]>) -> Vec<u8> {
        let shape = dims.map(|dims| Shape {
            dim: dims.iter().map(|&size| Dimension { value: Some(size) }).collect(),
        });
        let tensor = Some(Tensor { elem_type: number, shape });
        let r#type = Some(Type { tensor, ..Type::default() });
        ValueInfo { name: "x".to_owned(), r#type }.encode_to_vec()
    }

    #[test]
    fn every_datatype_of_the_protocol_has_its_number() {
        let found = (0..30).filter_map(datatype).collect::<Vec<_>>();
        assert_eq!(found.len(), Datatype::ALL.len());
        for datatype in Datatype::ALL {
            assert!(found.contains(&datatype), "{datatype}");
        }
        for number in 0..30 {
            let size = datatype(number).and_then(Datatype::size);
            let bits = bits(u64::try_from(number).unwrap());
            assert!(size.is_none_or(|size| bits == Some(8 * size as u64)), "{number}");
        }
    }

    #[test]
    fn sizes_that_are_not_fixed_become_any() {
        let declared = Declared::parse(&value(1, Some(&[-1, 0, 3]))).unwrap();
        assert_eq!(declared.shape, Some(vec![Dim::Any, Dim::Any, Dim::Fixed(3)]));
        assert_eq!(Declared::parse(&value(1, None)).unwrap().shape, None);
        assert_eq!(Declared::parse(&value(1, Some(&[]))).unwrap().shape, Some(Vec::new()));
    }

    #[test]
    fn what_the_protocol_lacks_is_refused_by_name() {
        let error = |bytes: &[u8]| Declared::parse(bytes).unwrap_err().to_string();
        assert!(error(&value(17, Some(&[1]))).contains("FLOAT8E4M3FN"));
        assert!(error(&value(99, Some(&[1]))).contains("99"));
        assert!(error(&value(1, Some(&[1; 17]))).contains("17 dimensions"));
        let map = Type { sequence: Some(Other {}), ..Type::default() };
        let info = ValueInfo { name: "probabilities".to_owned(), r#type: Some(map) };
        assert!(error(&info.encode_to_vec()).contains("`probabilities` is a sequence"));
        assert!(Declared::parse(b"\xff").is_err());
    }
}
