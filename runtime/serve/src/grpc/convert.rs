//! Messages to requests, responses to messages.
//!
//! This is pure. What a tensor may be is checked by [`Tensor`]; what a request may be, by
//! the checks that REST uses.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;
use wick_engine::{InferResponse, Parameter};
use wick_nn::{Element, Tensor, TensorError, element_count};
use wick_package::{Datatype, TensorSpec};

use super::proto::infer_parameter::ParameterChoice;
use super::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use super::proto::model_infer_response::InferOutputTensor;
use super::proto::{InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse};
use super::wire::Bounded as _;
use crate::codec::{
    self, DecodeError, Decoded, EncodeError, Identity, MAX_PARAMETERS, MAX_TENSORS, Output,
    Parameters, SHARED_MEMORY, clip,
};

/// Names of the fields of typed contents, for messages.
const FIELDS: [&str; 8] = [
    "bool_contents",
    "int_contents",
    "int64_contents",
    "uint_contents",
    "uint64_contents",
    "fp32_contents",
    "fp64_contents",
    "bytes_contents",
];

/// Read the bytes of a request, as the server does.
///
/// # Errors
/// They are no message, have too much of something, or say what no request may say.
pub fn decode(wire: Bytes) -> Result<Decoded, DecodeError> {
    let wrong = |text: String| DecodeError::Request(text);
    ModelInferRequest::check(&wire).map_err(|refused| wrong(refused.to_string()))?;
    let message = ModelInferRequest::decode(wire).map_err(|error| wrong(error.to_string()))?;
    request(message)
}

/// Read a request. Its raw contents become tensors without a copy where they are aligned.
///
/// # Errors
/// See [`DecodeError`]: always the client's mistake.
pub(super) fn request(message: ModelInferRequest) -> Result<Decoded, DecodeError> {
    let ModelInferRequest { id, parameters: all, inputs, outputs, raw_input_contents, .. } =
        message;
    for (count, what) in [(inputs.len(), "inputs"), (outputs.len(), "outputs")] {
        if count > MAX_TENSORS {
            return Err(DecodeError::Request(format!("more than {MAX_TENSORS} {what}")));
        }
    }
    let shared = |input: &InferInputTensor| input.parameters.contains_key(SHARED_MEMORY);
    codec::check_inputs(inputs.iter().map(|input| (input.name.as_str(), shared(input))))?;
    let tensors = tensors(inputs, raw_input_contents)?;
    let wanted = outputs.into_iter().map(output).collect::<Result<_, _>>()?;
    let all = parameters(all).map_err(DecodeError::Request)?;
    codec::assemble((!id.is_empty()).then_some(id), all, tensors, wanted, true)
}

/// Write a response: raw contents, or typed ones if the request wants no binary data.
///
/// # Errors
/// An output has no typed contents.
pub(super) fn response(
    who: Identity<'_>,
    response: InferResponse,
    raw: bool,
) -> Result<ModelInferResponse, EncodeError> {
    let mut message = ModelInferResponse {
        model_name: who.model.to_owned(),
        model_version: who.version.to_owned(),
        id: who.id.unwrap_or_default().to_owned(),
        parameters: response.parameters.into_iter().map(parameter).collect(),
        outputs: Vec::with_capacity(response.outputs.len()),
        raw_output_contents: Vec::new(),
    };
    for (name, tensor) in response.outputs {
        let contents = if raw {
            message.raw_output_contents.push(tensor.data().clone());
            None
        } else {
            Some(typed(&name, &tensor)?)
        };
        message.outputs.push(InferOutputTensor {
            name,
            datatype: tensor.datatype().to_string(),
            shape: tensor.shape().iter().map(|&dim| dim.try_into().unwrap_or(i64::MAX)).collect(),
            parameters: BTreeMap::new(),
            contents,
        });
    }
    Ok(message)
}

/// Refuse a request before it is computed, if an output can't be written as it wants.
///
/// # Errors
/// [`EncodeError::NoTypedForm`] for a half float.
pub(super) fn wanted_form_is_possible(
    outputs: &[TensorSpec],
    wanted: &[String],
    raw: bool,
) -> Result<(), EncodeError> {
    let half = outputs.iter().find(|spec| {
        !raw && field(spec.datatype).is_none() && (wanted.is_empty() || wanted.contains(&spec.name))
    });
    half.map_or(Ok(()), |spec| Err(no_typed_form(&spec.name, spec.datatype)))
}

fn tensors(
    inputs: Vec<InferInputTensor>,
    raw: Vec<Bytes>,
) -> Result<Vec<(String, Tensor)>, DecodeError> {
    if !raw.is_empty() && raw.len() != inputs.len() {
        return Err(DecodeError::Request(format!(
            "the request has {} inputs and {} raw_input_contents: send one for each input, or \
             none",
            inputs.len(),
            raw.len()
        )));
    }
    let mut raw = raw.into_iter();
    let mut tensors = Vec::with_capacity(inputs.len());
    for input in inputs {
        let tensor = tensor(&input, raw.next())?;
        tensors.push((input.name, tensor));
    }
    Ok(tensors)
}

fn tensor(input: &InferInputTensor, raw: Option<Bytes>) -> Result<Tensor, DecodeError> {
    let failed = |detail: String| DecodeError::Input { input: clip(&input.name), detail };
    if input.parameters.len() > MAX_PARAMETERS {
        return Err(failed(format!("more than {MAX_PARAMETERS} parameters")));
    }
    let known = clip(&input.datatype).parse::<Datatype>();
    let datatype = known.map_err(|error| failed(error.to_string()))?;
    let size = |&dim: &i64| {
        u64::try_from(dim).map_err(|_| failed(format!("size {dim} in `shape` is below 0")))
    };
    let shape: Vec<u64> = input.shape.iter().map(size).collect::<Result<_, _>>()?;
    let wrong = |source: TensorError| DecodeError::Tensor { input: clip(&input.name), source };
    // Before anything is made for the shape.
    let count = element_count(datatype, &shape).map_err(wrong)?;
    let empty = InferTensorContents::default();
    let contents = input.contents.as_ref().unwrap_or(&empty);
    match raw {
        Some(raw) => match filled(contents) {
            None => Tensor::new(datatype, &shape, raw).map_err(wrong),
            Some(field) => Err(failed(format!(
                "has `{}` although the request has raw_input_contents: send one of the two",
                FIELDS[field]
            ))),
        },
        None => {
            let got = length(contents, datatype).map_err(failed)?;
            if got as u64 != count {
                let text =
                    format!("`contents` has {got} elements, and shape {shape:?} needs {count}");
                return Err(failed(text));
            }
            from_contents(datatype, &shape, contents).map_err(|error| match error {
                Typed::Range(value) => failed(format!("{value} is out of range for {datatype}")),
                Typed::Tensor(error) => wrong(error),
            })
        }
    }
}

/// Why typed contents are no tensor.
enum Typed {
    Range(i64),
    Tensor(TensorError),
}

/// The field of typed contents that is for a datatype.
fn field(datatype: Datatype) -> Option<usize> {
    Some(match datatype {
        Datatype::Bool => 0,
        Datatype::Int8 | Datatype::Int16 | Datatype::Int32 => 1,
        Datatype::Int64 => 2,
        Datatype::Uint8 | Datatype::Uint16 | Datatype::Uint32 => 3,
        Datatype::Uint64 => 4,
        Datatype::Fp32 => 5,
        Datatype::Fp64 => 6,
        Datatype::Bytes => 7,
        Datatype::Fp16 | Datatype::Bf16 => return None,
    })
}

/// Elements by field.
fn lengths(contents: &InferTensorContents) -> [usize; FIELDS.len()] {
    [
        contents.bool_contents.len(),
        contents.int_contents.len(),
        contents.int64_contents.len(),
        contents.uint_contents.len(),
        contents.uint64_contents.len(),
        contents.fp32_contents.len(),
        contents.fp64_contents.len(),
        contents.bytes_contents.len(),
    ]
}

/// The first field that has elements.
fn filled(contents: &InferTensorContents) -> Option<usize> {
    lengths(contents).iter().position(|&len| len > 0)
}

/// Elements for a datatype, if there are none in the fields of others.
fn length(contents: &InferTensorContents, datatype: Datatype) -> Result<usize, String> {
    let lengths = lengths(contents);
    let own = field(datatype);
    match lengths.iter().enumerate().find(|&(field, &len)| len > 0 && Some(field) != own) {
        Some((field, _)) => {
            let field = FIELDS[field];
            let want = own.map_or("raw_input_contents", |own| FIELDS[own]);
            Err(format!("`{field}` is not for {datatype}: use `{want}`"))
        }
        None => Ok(own.map_or(0, |own| lengths[own])),
    }
}

fn from_contents(
    datatype: Datatype,
    shape: &[u64],
    contents: &InferTensorContents,
) -> Result<Tensor, Typed> {
    let tensor = match datatype {
        Datatype::Bool => {
            let bytes: Vec<u8> = contents.bool_contents.iter().map(|&x| u8::from(x)).collect();
            Tensor::new(datatype, shape, Bytes::from(bytes))
        }
        Datatype::Int8 => narrow::<i8, _>(shape, &contents.int_contents)?,
        Datatype::Int16 => narrow::<i16, _>(shape, &contents.int_contents)?,
        Datatype::Int32 => Tensor::from_vec(shape, contents.int_contents.clone()),
        Datatype::Int64 => Tensor::from_vec(shape, contents.int64_contents.clone()),
        Datatype::Uint8 => narrow::<u8, _>(shape, &contents.uint_contents)?,
        Datatype::Uint16 => narrow::<u16, _>(shape, &contents.uint_contents)?,
        Datatype::Uint32 => Tensor::from_vec(shape, contents.uint_contents.clone()),
        Datatype::Uint64 => Tensor::from_vec(shape, contents.uint64_contents.clone()),
        Datatype::Fp32 => Tensor::from_vec(shape, contents.fp32_contents.clone()),
        Datatype::Fp64 => Tensor::from_vec(shape, contents.fp64_contents.clone()),
        Datatype::Bytes => Tensor::from_strings(shape, &contents.bytes_contents),
        // Without elements, since they have no field.
        Datatype::Fp16 | Datatype::Bf16 => Tensor::new(datatype, shape, Bytes::new()),
    };
    tensor.map_err(Typed::Tensor)
}

/// Numbers of a narrower type than their field's.
fn narrow<T, W>(shape: &[u64], wide: &[W]) -> Result<Result<Tensor, TensorError>, Typed>
where
    T: Element + TryFrom<W>,
    W: Copy + Into<i64>,
{
    let number = |&value: &W| T::try_from(value).map_err(|_| Typed::Range(value.into()));
    let numbers: Vec<T> = wide.iter().map(number).collect::<Result<_, _>>()?;
    Ok(Tensor::from_vec(shape, numbers))
}

/// An output as typed contents.
fn typed(name: &str, tensor: &Tensor) -> Result<InferTensorContents, EncodeError> {
    let mut contents = InferTensorContents::default();
    macro_rules! numbers {
        ($($type:ty => $field:ident),*) => {
            $(if let Some(values) = tensor.as_slice::<$type>() {
                contents.$field = values.iter().map(|&value| value.into()).collect();
                return Ok(contents);
            })*
        };
    }
    numbers! {
        f32 => fp32_contents, f64 => fp64_contents, i64 => int64_contents,
        u64 => uint64_contents, i32 => int_contents, i16 => int_contents, i8 => int_contents,
        u32 => uint_contents, u16 => uint_contents, u8 => uint_contents
    }
    if let Some(strings) = tensor.strings() {
        contents.bytes_contents = strings.map(Bytes::copy_from_slice).collect();
        return Ok(contents);
    }
    if tensor.datatype() == Datatype::Bool {
        contents.bool_contents = tensor.data().iter().map(|&byte| byte != 0).collect();
        return Ok(contents);
    }
    Err(no_typed_form(name, tensor.datatype()))
}

fn no_typed_form(output: &str, datatype: Datatype) -> EncodeError {
    EncodeError::NoTypedForm { output: output.to_owned(), datatype }
}

fn output(message: InferRequestedOutputTensor) -> Result<Output, DecodeError> {
    let name = message.name;
    let failed = |detail| {
        let name = clip(&name);
        DecodeError::Request(format!("output `{name}`: {detail}"))
    };
    let parameters = parameters(message.parameters).map_err(failed)?;
    Ok(Output { name, parameters })
}

fn parameters(all: BTreeMap<String, InferParameter>) -> Result<Parameters, String> {
    if all.len() > MAX_PARAMETERS {
        return Err(format!("more than {MAX_PARAMETERS} parameters"));
    }
    let read = |(name, value): (String, InferParameter)| {
        let value = match value.parameter_choice {
            Some(ParameterChoice::BoolParam(value)) => Parameter::Bool(value),
            Some(ParameterChoice::Int64Param(value)) => Parameter::Int(value),
            Some(ParameterChoice::StringParam(value)) => Parameter::Text(value),
            Some(ParameterChoice::DoubleParam(value)) => Parameter::Float(value),
            Some(ParameterChoice::Uint64Param(value)) => {
                let value = i64::try_from(value).map_err(|_| {
                    let name = clip(&name);
                    format!("parameter `{name}` must fit into 64 bits with sign")
                })?;
                Parameter::Int(value)
            }
            None => return Err(format!("parameter `{}` has no value", clip(&name))),
        };
        Ok((name, value))
    };
    all.into_iter().map(read).collect::<Result<_, _>>().map(Parameters)
}

fn parameter((name, value): (String, Parameter)) -> (String, InferParameter) {
    let choice = match value {
        Parameter::Bool(value) => ParameterChoice::BoolParam(value),
        Parameter::Int(value) => ParameterChoice::Int64Param(value),
        Parameter::Float(value) => ParameterChoice::DoubleParam(value),
        Parameter::Text(value) => ParameterChoice::StringParam(value),
    };
    (name, InferParameter { parameter_choice: Some(choice) })
}

#[cfg(test)]
mod tests;
