//! Tensors as JSON, in the Open Inference Protocol's way: numbers, booleans and strings
//! in one flat list, or nested as the shape is. Pure.

use std::fmt::Write as _;

use bytes::{BufMut as _, BytesMut};
use serde_json::Value;
use wick_nn::Tensor;
use wick_package::Datatype;

/// Deepest nesting of a list: one level for each dimension that a tensor may have.
const MAX_DEPTH: usize = wick_package::MAX_RANK;

/// A list, flattened, and the shape that its nesting says.
pub struct Nested<'v> {
    pub shape: Vec<u64>,
    pub values: Vec<&'v Value>,
}

/// Flatten a list, or take a lone value as a list of one.
///
/// # Errors
/// Rows of different length, or a nesting deeper than any tensor.
pub fn flatten(value: &Value) -> Result<Nested<'_>, String> {
    let mut nested = Nested { shape: Vec::new(), values: Vec::new() };
    let mut row = value;
    while let Value::Array(items) = row {
        nested.shape.push(items.len() as u64);
        if nested.shape.len() > MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} lists inside each other"));
        }
        let Some(first) = items.first() else { break };
        row = first;
    }
    collect(value, &nested.shape, &mut nested.values)?;
    if nested.shape.is_empty() {
        nested.shape.push(1);
    }
    Ok(nested)
}

/// Make a tensor of JSON values.
///
/// # Errors
/// A value is not of the datatype, or their number does not fit the shape.
pub fn tensor(datatype: Datatype, shape: &[u64], values: &[&Value]) -> Result<Tensor, String> {
    let mut data = BytesMut::with_capacity(values.len() * datatype.size().unwrap_or(8));
    for value in values {
        put(&mut data, datatype, value)
            .ok_or_else(|| format!("{} is not a value of {datatype}", clip(value)))?;
    }
    Tensor::new(datatype, shape, data.freeze()).map_err(|error| error.to_string())
}

/// The elements as a flat list. NaN and infinities, which JSON lacks, become strings,
/// and so do bytes that are not UTF-8, in hexadecimal after `0x`.
pub fn values(tensor: &Tensor) -> Vec<Value> {
    (0..).map_while(elements(tensor)).collect()
}

/// A function from the index of an element to its value, and none past the end.
pub fn elements(tensor: &Tensor) -> Box<dyn FnMut(usize) -> Option<Value> + '_> {
    macro_rules! numbers {
        ($type:ty, $convert:expr) => {{
            let slice = tensor.as_slice::<$type>().unwrap_or_default();
            Box::new(move |index| slice.get(index).copied().map($convert))
        }};
    }
    match tensor.datatype() {
        Datatype::Bool => {
            Box::new(move |index| tensor.data().get(index).map(|byte| (*byte != 0).into()))
        }
        Datatype::Uint8 => numbers!(u8, Value::from),
        Datatype::Uint16 => numbers!(u16, Value::from),
        Datatype::Uint32 => numbers!(u32, Value::from),
        Datatype::Uint64 => numbers!(u64, Value::from),
        Datatype::Int8 => numbers!(i8, Value::from),
        Datatype::Int16 => numbers!(i16, Value::from),
        Datatype::Int32 => numbers!(i32, Value::from),
        Datatype::Int64 => numbers!(i64, Value::from),
        Datatype::Fp16 => numbers!(half::f16, |value| short_float(value.into())),
        Datatype::Bf16 => numbers!(half::bf16, |value| short_float(value.into())),
        Datatype::Fp32 => numbers!(f32, short_float),
        Datatype::Fp64 => numbers!(f64, float),
        Datatype::Bytes => {
            let mut strings: Vec<_> = tensor.strings().into_iter().flatten().map(text).collect();
            Box::new(move |index| strings.get_mut(index).map(Value::take))
        }
    }
}

fn collect<'v>(value: &'v Value, shape: &[u64], values: &mut Vec<&'v Value>) -> Result<(), String> {
    match (value, shape.split_first()) {
        (Value::Array(items), Some((&len, rest))) if items.len() as u64 == len => {
            items.iter().try_for_each(|item| collect(item, rest, values))
        }
        (Value::Array(_), _) | (_, Some(_)) => {
            Err("rows of different length or depth: a tensor has one shape".to_owned())
        }
        (value, None) => {
            values.push(value);
            Ok(())
        }
    }
}

fn put(data: &mut BytesMut, datatype: Datatype, value: &Value) -> Option<()> {
    macro_rules! integer {
        ($type:ty, $as:ident, $put:ident) => {
            data.$put(<$type>::try_from(value.$as()?).ok()?)
        };
    }
    match datatype {
        Datatype::Bool => data.put_u8(boolean(value)?),
        Datatype::Uint8 => integer!(u8, as_u64, put_u8),
        Datatype::Uint16 => integer!(u16, as_u64, put_u16_le),
        Datatype::Uint32 => integer!(u32, as_u64, put_u32_le),
        Datatype::Uint64 => data.put_u64_le(value.as_u64()?),
        Datatype::Int8 => integer!(i8, as_i64, put_i8),
        Datatype::Int16 => integer!(i16, as_i64, put_i16_le),
        Datatype::Int32 => integer!(i32, as_i64, put_i32_le),
        Datatype::Int64 => data.put_i64_le(value.as_i64()?),
        Datatype::Fp16 => data.put_u16_le(half::f16::from_f64(value.as_f64()?).to_bits()),
        Datatype::Bf16 => data.put_u16_le(half::bf16::from_f64(value.as_f64()?).to_bits()),
        Datatype::Fp32 => data.put_f32_le(value.as_f64()? as f32),
        Datatype::Fp64 => data.put_f64_le(value.as_f64()?),
        Datatype::Bytes => {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                _ => return None,
            };
            data.put_u32_le(u32::try_from(text.len()).ok()?);
            data.put_slice(text.as_bytes());
        }
    }
    Some(())
}

fn boolean(value: &Value) -> Option<u8> {
    match value {
        Value::Bool(value) => Some(u8::from(*value)),
        Value::Number(number) => number.as_u64().and_then(|n| u8::try_from(n).ok()),
        _ => None,
    }
}

/// The shortest decimal that reads back as the same 32-bit number: `0.1`, and not the
/// `0.10000000149011612` that it is as a 64-bit one.
fn short_float(value: f32) -> Value {
    float(value.to_string().parse().unwrap_or_else(|_| f64::from(value)))
}

fn float(value: f64) -> Value {
    serde_json::Number::from_f64(value).map_or_else(|| value.to_string().into(), Value::Number)
}

fn text(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => {
            let mut hex = String::with_capacity(2 + 2 * bytes.len());
            hex.push_str("0x");
            for byte in bytes {
                // Writing to a string cannot fail.
                let _ = write!(hex, "{byte:02x}");
            }
            hex.into()
        }
    }
}

fn clip(value: &Value) -> String {
    const MAX_ECHO: usize = 40;
    let text = value.to_string();
    if text.chars().count() <= MAX_ECHO {
        return text;
    }
    text.chars().take(MAX_ECHO).chain(std::iter::once('…')).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn round_trip(datatype: Datatype, json: Value) {
        let nested = flatten(&json).unwrap();
        let tensor = tensor(datatype, &nested.shape, &nested.values).unwrap();
        let flat: Vec<_> = nested.values.into_iter().cloned().collect();
        assert_eq!(values(&tensor), flat, "{datatype}");
    }

    #[test]
    fn every_datatype_survives_json() {
        for datatype in Datatype::ALL {
            match datatype {
                Datatype::Bool => round_trip(datatype, json!([true, false])),
                Datatype::Bytes => round_trip(datatype, json!(["a", ""])),
                Datatype::Fp16 | Datatype::Bf16 | Datatype::Fp32 | Datatype::Fp64 => {
                    round_trip(datatype, json!([[0.5, -2.0], [1.0, 0.0]]));
                }
                _ => round_trip(datatype, json!([[1, 2, 3], [4, 5, 100]])),
            }
        }
        round_trip(Datatype::Fp32, json!([0.1]));
    }

    #[test]
    fn ragged_lists_and_wrong_values_are_refused() {
        for bad in [json!([[1], [1, 2]]), json!([1, [2]]), json!([[1], 2])] {
            assert!(flatten(&bad).is_err(), "{bad}");
        }
        let cases = [
            (Datatype::Uint8, json!(256)),
            (Datatype::Int32, json!(1.5)),
            (Datatype::Fp32, json!("x")),
            (Datatype::Bool, json!(2)),
        ];
        for (datatype, value) in cases {
            assert!(tensor(datatype, &[1], &[&value]).is_err(), "{datatype} {value}");
        }
    }

    #[test]
    fn what_json_lacks_becomes_text() {
        let odd = Tensor::from_vec(&[2], vec![f32::NAN, f32::INFINITY]).unwrap();
        assert_eq!(values(&odd), [json!("NaN"), json!("inf")]);
        let bytes = Tensor::from_strings(&[1], &[[0xff_u8, 0]]).unwrap();
        assert_eq!(values(&bytes), [json!("0xff00")]);
    }
}
