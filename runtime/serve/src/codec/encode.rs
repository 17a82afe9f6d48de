//! A response to bytes: JSON written straight from typed slices, and binary outputs
//! passed on as they are.

use bytes::Bytes;
use serde::Serialize;
use serde::ser::{Error as _, SerializeMap as _, Serializer};
use wick_engine::{InferResponse, Parameter};
use wick_nn::Tensor;
use wick_package::{Datatype, TensorSpec};

use super::{EncodeError, Wants};

/// Bytes of JSON that one element usually takes, for the first allocation.
const ELEMENT_TEXT: usize = 10;

/// Largest first allocation for JSON: larger texts grow as they are written.
const MAX_FIRST_ALLOCATION: usize = 16 << 20;

/// Who answers, and to which request.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    pub model: &'a str,
    pub version: &'a str,
    pub id: Option<&'a str>,
}

/// A written response.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// Length of the JSON, if binary data follows it.
    pub header: Option<usize>,
    /// The JSON, then each binary output, uncopied.
    pub chunks: Vec<Bytes>,
}

#[derive(Serialize)]
struct ResponseJson<'a> {
    model_name: &'a str,
    model_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<ParametersJson<'a>>,
    outputs: Vec<OutputJson<'a>>,
}

#[derive(Serialize)]
struct OutputJson<'a> {
    name: &'a str,
    datatype: Datatype,
    shape: &'a [u64],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<BinarySize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<DataJson<'a>>,
}

#[derive(Serialize)]
struct BinarySize {
    binary_data_size: usize,
}

struct ParametersJson<'a>(&'a [(String, Parameter)]);

struct DataJson<'a>(&'a Tensor);

/// Write a response as the client wants it.
///
/// # Errors
/// An output that JSON cannot hold was not asked for as binary data.
pub fn encode(
    who: Identity<'_>,
    response: &InferResponse,
    wants: &Wants,
) -> Result<Encoded, EncodeError> {
    let mut outputs = Vec::with_capacity(response.outputs.len());
    let mut chunks = vec![Bytes::new()];
    let mut estimate = 256;
    for (name, tensor) in &response.outputs {
        let binary = wants.binary(name);
        if binary {
            chunks.push(tensor.data().clone());
        } else {
            check_json(name, tensor)?;
            estimate += json_size(tensor);
        }
        outputs.push(OutputJson {
            name,
            datatype: tensor.datatype(),
            shape: tensor.shape(),
            parameters: binary.then(|| BinarySize { binary_data_size: tensor.data().len() }),
            data: (!binary).then_some(DataJson(tensor)),
        });
    }
    let parameters = &response.parameters;
    let json = ResponseJson {
        model_name: who.model,
        model_version: who.version,
        id: who.id,
        parameters: (!parameters.is_empty()).then_some(ParametersJson(parameters)),
        outputs,
    };
    let mut text = Vec::with_capacity(estimate.min(MAX_FIRST_ALLOCATION));
    serde_json::to_writer(&mut text, &json)
        .expect("writing to memory cannot fail, and the tensors were checked");
    let header = (chunks.len() > 1).then_some(text.len());
    chunks[0] = Bytes::from(text);
    Ok(Encoded { header, chunks })
}

/// Refuse a request before it is computed, if an output that it wants as JSON can
/// never be JSON.
///
/// # Errors
/// [`EncodeError::NoJsonForm`] for a half float.
pub fn wanted_json_is_possible(
    outputs: &[TensorSpec],
    wanted: &[String],
    wants: &Wants,
) -> Result<(), EncodeError> {
    let half = outputs.iter().find(|spec| {
        no_json_form(spec.datatype)
            && (wanted.is_empty() || wanted.contains(&spec.name))
            && !wants.binary(&spec.name)
    });
    half.map_or(Ok(()), |spec| {
        Err(EncodeError::NoJsonForm { output: spec.name.clone(), datatype: spec.datatype })
    })
}

fn no_json_form(datatype: Datatype) -> bool {
    matches!(datatype, Datatype::Fp16 | Datatype::Bf16)
}

fn check_json(name: &str, tensor: &Tensor) -> Result<(), EncodeError> {
    let output = || name.to_owned();
    if no_json_form(tensor.datatype()) {
        return Err(EncodeError::NoJsonForm { output: output(), datatype: tensor.datatype() });
    }
    let single = tensor.as_slice::<f32>().is_none_or(|all| all.iter().all(|x| x.is_finite()));
    let double = tensor.as_slice::<f64>().is_none_or(|all| all.iter().all(|x| x.is_finite()));
    if !single || !double {
        return Err(EncodeError::NotFinite { output: output() });
    }
    if let Some(mut strings) = tensor.strings()
        && strings.any(|string| std::str::from_utf8(string).is_err())
    {
        return Err(EncodeError::NotUtf8 { output: output() });
    }
    Ok(())
}

fn json_size(tensor: &Tensor) -> usize {
    let bytes = tensor.data().len();
    match tensor.datatype().size() {
        Some(size) => bytes / size * ELEMENT_TEXT,
        None => bytes,
    }
}

// === impl Serialize ===

impl Serialize for ParametersJson<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.0 {
            match value {
                Parameter::Bool(value) => map.serialize_entry(name, value)?,
                Parameter::Int(value) => map.serialize_entry(name, value)?,
                Parameter::Float(value) => map.serialize_entry(name, value)?,
                Parameter::Text(value) => map.serialize_entry(name, value)?,
            }
        }
        map.end()
    }
}

impl Serialize for DataJson<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let tensor = self.0;
        macro_rules! numbers {
            ($($type:ty),*) => {
                $(if let Some(values) = tensor.as_slice::<$type>() {
                    return s.collect_seq(values);
                })*
            };
        }
        numbers!(f32, u8, i64, i32, f64, i8, i16, u16, u32, u64);
        if let Some(strings) = tensor.strings() {
            return s.collect_seq(strings.map(|string| String::from_utf8_lossy(string)));
        }
        if tensor.datatype() == Datatype::Bool {
            return s.collect_seq(tensor.data().iter().map(|&byte| byte != 0));
        }
        Err(S::Error::custom("a half float reached JSON"))
    }
}
