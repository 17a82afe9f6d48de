//! Tensors between wick and tract.

use std::borrow::Cow;

use bytes::Bytes;
use half::f16;
use tract_onnx::prelude::{DatumType, IntoTValue as _, TValue, Tensor as TractTensor};
use wick_package::Datatype;

use crate::tensor::{Element, Tensor};

/// Bytes that a tract value holds.
struct Owner(TValue);

/// tract's element type for ours; none for what tract lacks.
pub(super) fn datum_type(datatype: Datatype) -> Option<DatumType> {
    Some(match datatype {
        Datatype::Bool => DatumType::Bool,
        Datatype::Uint8 => DatumType::U8,
        Datatype::Uint16 => DatumType::U16,
        Datatype::Uint32 => DatumType::U32,
        Datatype::Uint64 => DatumType::U64,
        Datatype::Int8 => DatumType::I8,
        Datatype::Int16 => DatumType::I16,
        Datatype::Int32 => DatumType::I32,
        Datatype::Int64 => DatumType::I64,
        Datatype::Fp16 => DatumType::F16,
        Datatype::Fp32 => DatumType::F32,
        Datatype::Fp64 => DatumType::F64,
        Datatype::Bytes => DatumType::String,
        Datatype::Bf16 => return None,
    })
}

/// A copy of the tensor for tract. The text of an error goes after the input's
/// name.
pub(super) fn to_tract(tensor: &Tensor) -> Result<TValue, String> {
    let made = match tensor.datatype() {
        Datatype::Bool => {
            let values: Vec<bool> = tensor.data().iter().map(|&byte| byte != 0).collect();
            TractTensor::from_shape(&shape(tensor)?, &values)
        }
        Datatype::Bytes => return strings_to_tract(tensor),
        Datatype::Uint8 => numbers::<u8>(tensor)?,
        Datatype::Uint16 => numbers::<u16>(tensor)?,
        Datatype::Uint32 => numbers::<u32>(tensor)?,
        Datatype::Uint64 => numbers::<u64>(tensor)?,
        Datatype::Int8 => numbers::<i8>(tensor)?,
        Datatype::Int16 => numbers::<i16>(tensor)?,
        Datatype::Int32 => numbers::<i32>(tensor)?,
        Datatype::Int64 => numbers::<i64>(tensor)?,
        Datatype::Fp16 => numbers::<f16>(tensor)?,
        Datatype::Fp32 => numbers::<f32>(tensor)?,
        Datatype::Fp64 => numbers::<f64>(tensor)?,
        Datatype::Bf16 => return Err("is BF16, which tract lacks".to_owned()),
    };
    made.map(TractTensor::into_tvalue).map_err(|error| format!("is refused by tract: {error}"))
}

type Made = Result<TractTensor, tract_onnx::prelude::TractError>;

fn numbers<T: Element + tract_onnx::prelude::Datum + Copy>(
    tensor: &Tensor,
) -> Result<Made, String> {
    let values = tensor.as_slice::<T>().ok_or("has another datatype than it says")?;
    Ok(TractTensor::from_shape(&shape(tensor)?, values))
}

fn strings_to_tract(tensor: &Tensor) -> Result<TValue, String> {
    let values = tensor.strings().into_iter().flatten();
    let texts = values.map(|value| std::str::from_utf8(value).map(str::to_owned));
    let texts: Vec<String> = texts
        .collect::<Result<_, _>>()
        .map_err(|_| "holds a string that is not UTF-8, which tract cannot take".to_owned())?;
    let array = tract_onnx::prelude::tract_ndarray::ArrayD::from_shape_vec(shape(tensor)?, texts)
        .map_err(|error| format!("is refused by tract: {error}"))?;
    Ok(TractTensor::from(array).into_tvalue())
}

fn shape(tensor: &Tensor) -> Result<Vec<usize>, String> {
    let sizes = tensor.shape().iter().map(|&size| usize::try_from(size));
    sizes.collect::<Result<_, _>>().map_err(|_| "has a shape that is too large".to_owned())
}

/// A tensor over tract's memory, without a copy where the datatype is the declared
/// one. The text of an error goes after the output's name.
pub(super) fn from_tract(value: TValue, want: Datatype) -> Result<Tensor, String> {
    let want_type = datum_type(want).ok_or("is BF16, which tract lacks")?;
    let value = if value.datum_type() == want_type {
        value
    } else {
        // Sizes come as symbolic dimensions where the model declares INT64.
        let cast = value.cast_to_dt(want_type).map_err(|error| format!("{error}"))?;
        let own: Cow<'_, TractTensor> = cast;
        own.into_owned().into_tvalue()
    };
    let shape: Vec<u64> = value.shape().iter().map(|&size| size as u64).collect();
    let made = if want == Datatype::Bytes {
        let view = value.try_as_plain_ram().map_err(|error| error.to_string())?;
        let texts = view.as_slice::<String>().map_err(|error| error.to_string())?;
        Tensor::from_strings(&shape, texts)
    } else {
        value.try_as_plain_ram().map_err(|error| error.to_string())?;
        Tensor::new(want, &shape, Bytes::from_owner(Owner(value)))
    };
    made.map_err(|error| error.to_string())
}

// === impl Owner ===

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}
