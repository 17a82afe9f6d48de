//! The client's side of the Open Inference Protocol: a request to bytes, bytes to an
//! answer. Pure; it knows nothing of sockets.

use std::borrow::Cow;

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use wick_engine::{InferRequest, InferResponse, Parameter};
use wick_nn::Tensor;
use wick_package::{Datatype, Dim, TensorSpec};

use crate::tensor_json;

/// The head that says where the JSON ends and binary tensors begin.
pub const HEADER_LENGTH: &str = "inference-header-content-length";

/// A request's body.
pub struct Body {
    pub bytes: Bytes,
    /// Length of the JSON, if binary tensors follow it.
    pub header: Option<usize>,
}

/// A model's metadata.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Metadata {
    pub name: String,
    #[serde(default)]
    pub platform: String,
    #[serde(default)]
    inputs: Vec<TensorMetadata>,
    #[serde(default)]
    outputs: Vec<TensorMetadata>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct TensorMetadata {
    name: String,
    datatype: String,
    shape: Vec<i64>,
}

/// A tensor of a body, request or response.
#[derive(Deserialize)]
struct TensorJson<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    datatype: Cow<'a, str>,
    shape: Vec<u64>,
    #[serde(default)]
    parameters: Map<String, Value>,
    data: Option<Value>,
}

#[derive(Deserialize)]
struct RequestJson<'a> {
    id: Option<String>,
    #[serde(default)]
    parameters: Map<String, Value>,
    #[serde(borrow)]
    inputs: Vec<TensorJson<'a>>,
    #[serde(default)]
    outputs: Vec<OutputJson>,
}

#[derive(Deserialize)]
struct OutputJson {
    name: String,
}

#[derive(Deserialize)]
struct ResponseJson<'a> {
    #[serde(default)]
    parameters: Map<String, Value>,
    #[serde(borrow)]
    outputs: Vec<TensorJson<'a>>,
}

// === impl Metadata ===

impl Metadata {
    pub fn inputs(&self) -> Result<Vec<TensorSpec>, String> {
        self.inputs.iter().map(TensorMetadata::spec).collect()
    }
}

impl TensorMetadata {
    fn spec(&self) -> Result<TensorSpec, String> {
        let datatype = self.datatype.parse().map_err(|error| format!("{error}"))?;
        let dim = |dim: &i64| u64::try_from(*dim).map_or(Dim::Any, Dim::Fixed);
        let shape = self.shape.iter().map(dim).collect();
        Ok(TensorSpec { name: self.name.clone(), datatype, shape })
    }
}

/// Write a request. With `binary`, tensors follow the JSON as they are in memory, and
/// so will the answer's.
pub fn encode(request: &InferRequest, binary: bool) -> Body {
    let inputs: Vec<_> =
        request.inputs.iter().map(|(name, tensor)| input_json(name, tensor, binary)).collect();
    let mut json = Map::new();
    if let Some(id) = &request.id {
        json.insert("id".into(), id.clone().into());
    }
    let mut parameters: Map<_, _> =
        request.parameters.iter().map(|(name, value)| (name.clone(), to_json(value))).collect();
    if binary {
        parameters.insert("binary_data_output".into(), true.into());
    }
    if !parameters.is_empty() {
        json.insert("parameters".into(), parameters.into());
    }
    json.insert("inputs".into(), inputs.into());
    if !request.outputs.is_empty() {
        let outputs: Vec<_> = request.outputs.iter().map(|name| json!({ "name": name })).collect();
        json.insert("outputs".into(), outputs.into());
    }
    let head = Value::Object(json).to_string();
    if !binary {
        return Body { bytes: head.into(), header: None };
    }
    let total: usize = request.inputs.iter().map(|(_, tensor)| tensor.data().len()).sum();
    let mut bytes = BytesMut::with_capacity(head.len() + total);
    bytes.put_slice(head.as_bytes());
    for (_, tensor) in &request.inputs {
        bytes.put_slice(tensor.data());
    }
    Body { bytes: bytes.freeze(), header: Some(head.len()) }
}

/// Read an answer; `header` is the length of its JSON if binary tensors follow it.
///
/// # Errors
/// Says what of it is not the protocol.
pub fn decode(bytes: &Bytes, header: Option<usize>) -> Result<InferResponse, String> {
    let at = header.unwrap_or(bytes.len());
    if at > bytes.len() {
        return Err(format!("the JSON's length is {at}, and the body has {} bytes", bytes.len()));
    }
    let json: ResponseJson<'_> =
        serde_json::from_slice(&bytes[..at]).map_err(|error| error.to_string())?;
    let mut rest = bytes.slice(at..);
    let outputs = json.outputs.iter().map(|output| read_tensor(output, &mut rest));
    let outputs = outputs.collect::<Result<_, _>>()?;
    Ok(InferResponse { parameters: from_parameters(json.parameters)?, outputs })
}

/// Read a request written in JSON by hand.
///
/// # Errors
/// Says what of it is not the protocol.
pub fn read_request(text: &[u8]) -> Result<InferRequest, String> {
    let json: RequestJson<'_> = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let mut nothing = Bytes::new();
    let inputs = json.inputs.iter().map(|input| read_tensor(input, &mut nothing));
    Ok(InferRequest {
        id: json.id,
        parameters: from_parameters(json.parameters)?,
        inputs: inputs.collect::<Result<_, _>>()?,
        outputs: json.outputs.into_iter().map(|output| output.name).collect(),
    })
}

/// A parameter's value in JSON.
pub fn to_json(parameter: &Parameter) -> Value {
    match parameter {
        Parameter::Bool(value) => (*value).into(),
        Parameter::Int(value) => (*value).into(),
        Parameter::Float(value) => (*value).into(),
        Parameter::Text(value) => value.clone().into(),
    }
}

/// A parameter's value from the command line: what JSON takes for a number or boolean
/// is one, everything else is text.
pub fn parameter(text: &str) -> Parameter {
    serde_json::from_str(text)
        .ok()
        .and_then(|value| from_json(&value))
        .unwrap_or_else(|| Parameter::Text(text.to_owned()))
}

fn from_json(value: &Value) -> Option<Parameter> {
    Some(match value {
        Value::Bool(value) => Parameter::Bool(*value),
        Value::Number(number) => match number.as_i64() {
            Some(value) => Parameter::Int(value),
            None => Parameter::Float(number.as_f64()?),
        },
        Value::String(text) => Parameter::Text(text.clone()),
        _ => return None,
    })
}

fn from_parameters(parameters: Map<String, Value>) -> Result<Vec<(String, Parameter)>, String> {
    let read = |(name, value): (String, Value)| match from_json(&value) {
        Some(value) => Ok((name, value)),
        None => Err(format!("parameter `{name}` is neither text, number nor boolean")),
    };
    parameters.into_iter().map(read).collect()
}

fn input_json(name: &str, tensor: &Tensor, binary: bool) -> Value {
    let mut json = json!({
        "name": name,
        "datatype": tensor.datatype(),
        "shape": tensor.shape(),
    });
    if binary {
        json["parameters"] = json!({ "binary_data_size": tensor.data().len() });
    } else {
        json["data"] = tensor_json::values(tensor).into();
    }
    json
}

fn read_tensor(json: &TensorJson<'_>, rest: &mut Bytes) -> Result<(String, Tensor), String> {
    let wrong = |detail: String| format!("tensor `{}`: {detail}", json.name);
    let datatype: Datatype = json.datatype.parse().map_err(|error| wrong(format!("{error}")))?;
    let tensor = match (&json.data, json.parameters.get("binary_data_size")) {
        (Some(data), _) => {
            let nested = tensor_json::flatten(data).map_err(wrong)?;
            tensor_json::tensor(datatype, &json.shape, &nested.values).map_err(wrong)?
        }
        (None, Some(size)) => {
            let size = size.as_u64().and_then(|size| usize::try_from(size).ok());
            let size = size.filter(|size| *size <= rest.len());
            let size = size.ok_or_else(|| wrong("its binary data is not all there".into()))?;
            let data = rest.split_to(size);
            let tensor = Tensor::new(datatype, &json.shape, data);
            tensor.map_err(|error| wrong(error.to_string()))?
        }
        (None, None) => return Err(wrong("it has no data".into())),
    };
    Ok((json.name.clone().into_owned(), tensor))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> InferRequest {
        InferRequest {
            id: Some("7".into()),
            parameters: vec![("top".into(), Parameter::Int(3))],
            inputs: vec![
                ("x".into(), Tensor::from_vec(&[1, 2], vec![1.5_f32, -2.0]).unwrap()),
                ("s".into(), Tensor::from_strings(&[1], &["hi"]).unwrap()),
            ],
            outputs: vec!["y".into()],
        }
    }

    #[test]
    fn a_request_in_json_reads_back_as_itself() {
        let body = encode(&request(), false);
        assert_eq!(body.header, None);
        let again = read_request(&body.bytes).unwrap();
        assert_eq!(format!("{again:?}"), format!("{:?}", request()));
        assert_eq!(again.inputs[0].1.data(), request().inputs[0].1.data());
    }

    #[test]
    fn binary_tensors_follow_the_json_in_order() {
        let body = encode(&request(), true);
        let at = body.header.unwrap();
        let json: Value = serde_json::from_slice(&body.bytes[..at]).unwrap();
        assert_eq!(json["parameters"]["binary_data_output"], true);
        assert_eq!(json["inputs"][0]["parameters"]["binary_data_size"], 8);
        assert_eq!(&body.bytes[at + 8..], b"\x02\0\0\0hi");
    }

    #[test]
    fn answers_may_mix_json_and_binary_tensors() {
        let json = br#"{"outputs":[{"name":"a","datatype":"INT32","shape":[1],"data":[7]},
            {"name":"b","datatype":"UINT8","shape":[2],"parameters":{"binary_data_size":2}}]}"#;
        let body = Bytes::from([&json[..], b"\x01\x02"].concat());
        let answer = decode(&body, Some(json.len())).unwrap();
        assert_eq!(answer.outputs[0].1.as_slice::<i32>(), Some(&[7][..]));
        assert_eq!(&answer.outputs[1].1.data()[..], b"\x01\x02");
    }

    #[test]
    fn answers_that_are_not_the_protocol_are_errors() {
        let short = br#"{"outputs":[{"name":"b","datatype":"UINT8","shape":[2],
            "parameters":{"binary_data_size":2}}]}"#;
        assert!(decode(&Bytes::from_static(short), None).is_err());
        assert!(decode(&Bytes::from_static(b"{}"), Some(3)).is_err());
        assert!(decode(&Bytes::from_static(b"<html>"), None).is_err());
    }

    #[test]
    fn parameters_are_numbers_where_they_look_like_it() {
        assert_eq!(parameter("0.5"), Parameter::Float(0.5));
        assert_eq!(parameter("3"), Parameter::Int(3));
        assert_eq!(parameter("true"), Parameter::Bool(true));
        assert_eq!(parameter("[1]"), Parameter::Text("[1]".into()));
        assert_eq!(parameter("cat"), Parameter::Text("cat".into()));
    }
}
