//! Bytes to a request.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use wick_engine::InferRequest;
use wick_nn::Tensor;
use wick_package::{Datatype, Dim, TensorSpec};

use super::cursor::{Cursor, Unread};
use super::data;
use super::fields::{Output, Outputs, Shape};
use super::parameters::Parameters;
use super::{DecodeError, Decoded, MAX_TENSORS, Wants, clip};

/// The parameter of a tensor whose data is somewhere else.
pub(crate) const SHARED_MEMORY: &str = "shared_memory_region";

/// What the JSON object has.
#[derive(Default)]
struct Body<'t> {
    id: Option<Option<String>>,
    parameters: Option<Parameters>,
    inputs: Option<Vec<Input<'t>>>,
    outputs: Option<Vec<Output>>,
}

struct Input<'t> {
    name: String,
    datatype: Datatype,
    shape: Vec<u64>,
    parameters: Parameters,
    /// Unread until datatype and shape are known, whatever order they come in.
    data: Option<Unread<'t>>,
}

/// Which outputs say that they want to be binary or not.
type Flags = Vec<(String, bool)>;

/// Decode the body of an inference request. `header` is the number in
/// `Inference-Header-Content-Length`; `inputs` are the model's, for a body that is
/// its only input's bytes.
///
/// # Errors
/// See [`DecodeError`]: always the client's mistake.
pub fn decode(
    header: Option<usize>,
    body: &Bytes,
    inputs: &[TensorSpec],
) -> Result<Decoded, DecodeError> {
    match header {
        None => decode_json(body, Bytes::new()),
        Some(0) => decode_raw(body, inputs),
        Some(header) if header <= body.len() => decode_json(&body[..header], body.slice(header..)),
        Some(header) => Err(DecodeError::HeaderPastBody { header, body: body.len() }),
    }
}

fn decode_json(text: &[u8], binary: Bytes) -> Result<Decoded, DecodeError> {
    let mut cursor = Cursor::new(text);
    let mut body = read_body(&mut cursor)?;
    cursor.end()?;
    let inputs = body.inputs.take();
    let inputs = inputs.ok_or_else(|| DecodeError::Request("`inputs` is missing".into()))?;
    let inputs = tensors(&cursor, inputs, binary)?;
    let Body { id, parameters, outputs, .. } = body;
    let (parameters, outputs) = (parameters.unwrap_or_default(), outputs.unwrap_or_default());
    assemble(id.flatten(), parameters, inputs, outputs, false)
}

fn read_body<'t>(cursor: &mut Cursor<'t>) -> Result<Body<'t>, DecodeError> {
    let mut body = Body::default();
    cursor.object("an inference request: an object with `inputs`", |cursor, field| {
        match field {
            "id" => once(&mut body.id, field, cursor.value()?)?,
            "parameters" => once(&mut body.parameters, field, cursor.value()?)?,
            "inputs" => {
                let mut all = Vec::new();
                cursor.array("`inputs`: an array of tensors", |cursor| {
                    if all.len() == MAX_TENSORS {
                        return Err(DecodeError::Request(format!(
                            "more than {MAX_TENSORS} inputs"
                        )));
                    }
                    all.push(read_input(cursor)?);
                    Ok(())
                })?;
                once(&mut body.inputs, field, all)?;
            }
            "outputs" => once(&mut body.outputs, field, cursor.value::<Outputs>()?.0)?,
            _ => cursor.skip()?,
        }
        Ok(())
    })?;
    Ok(body)
}

fn read_input<'t>(cursor: &mut Cursor<'t>) -> Result<Input<'t>, DecodeError> {
    let (mut name, mut datatype, mut shape) = (None, None, None);
    let (mut parameters, mut data) = (None, None);
    let what = "an input: an object with `name`, `shape`, `datatype` and `data`";
    cursor.object(what, |cursor, field| match field {
        "name" => once(&mut name, field, cursor.value::<String>()?),
        "shape" => once(&mut shape, field, cursor.value::<Shape>()?.0),
        "datatype" => {
            let known = clip(&cursor.value::<String>()?).parse::<Datatype>();
            let known = known.map_err(|error| DecodeError::Request(error.to_string()))?;
            once(&mut datatype, field, known)
        }
        "data" => {
            let unread = cursor.unread()?;
            once(&mut data, field, unread)
        }
        "parameters" => once(&mut parameters, field, cursor.value::<Parameters>()?),
        _ => cursor.skip(),
    })?;
    let missing = |field| DecodeError::Request(format!("an input has no `{field}`"));
    Ok(Input {
        name: name.ok_or_else(|| missing("name"))?,
        datatype: datatype.ok_or_else(|| missing("datatype"))?,
        shape: shape.ok_or_else(|| missing("shape"))?,
        parameters: parameters.unwrap_or_default(),
        data,
    })
}

/// Take a member's value, which must not have come before.
fn once<T>(place: &mut Option<T>, field: &str, value: T) -> Result<(), DecodeError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(DecodeError::Request(format!("`{field}` comes twice"))),
    }
}

/// A request of its parts, whatever form they came in. What its parameters ask of the server
/// is taken out of them; `binary` is what holds if they don't say it.
pub(crate) fn assemble(
    id: Option<String>,
    mut parameters: Parameters,
    inputs: Vec<(String, Tensor)>,
    wanted: Vec<Output>,
    binary: bool,
) -> Result<Decoded, DecodeError> {
    let asked = parameters.take_bool("binary_data_output").map_err(DecodeError::Request)?;
    let timeout = parameters.take_count("timeout").map_err(DecodeError::Request)?;
    let priority = parameters.take_count("priority").map_err(DecodeError::Request)?;
    let (outputs, flags) = outputs(wanted)?;
    Ok(Decoded {
        request: InferRequest { id, parameters: parameters.0, inputs, outputs },
        wants: Wants { binary: asked.unwrap_or(binary), outputs: flags },
        timeout: timeout.filter(|&micros| micros > 0).map(Duration::from_micros),
        priority: priority.unwrap_or(0),
    })
}

/// Check what holds for inputs of every form: each name once, and no shared memory.
pub(crate) fn check_inputs<'a>(
    inputs: impl Iterator<Item = (&'a str, bool)>,
) -> Result<(), DecodeError> {
    let mut names = HashSet::new();
    for (name, shared) in inputs {
        if !names.insert(name) {
            return Err(DecodeError::Request(format!("input `{}` comes twice", clip(name))));
        }
        if shared {
            let detail = "shared memory is not supported: send the data".to_owned();
            return Err(DecodeError::Input { input: clip(name), detail });
        }
    }
    Ok(())
}

/// The raw form: no JSON, the body is the only input, all outputs come back binary.
/// One dimension may be unknown; it is computed. A BYTES input is one string.
fn decode_raw(body: &Bytes, inputs: &[TensorSpec]) -> Result<Decoded, DecodeError> {
    let [spec] = inputs else {
        let text = format!(
            "Inference-Header-Content-Length is 0, which needs a model with one input; this one has {}",
            inputs.len()
        );
        return Err(DecodeError::Request(text));
    };
    let failed = |source| DecodeError::Tensor { input: spec.name.clone(), source };
    let tensor = if spec.datatype == Datatype::Bytes {
        let shape = vec![1; spec.shape.len()];
        Tensor::from_strings(&shape, &[body]).map_err(failed)?
    } else {
        Tensor::new(spec.datatype, &raw_shape(spec, body.len())?, body.clone()).map_err(failed)?
    };
    Ok(Decoded {
        request: InferRequest { inputs: vec![(spec.name.clone(), tensor)], ..Default::default() },
        wants: Wants { binary: true, outputs: Vec::new() },
        timeout: None,
        priority: 0,
    })
}

fn raw_shape(spec: &TensorSpec, bytes: usize) -> Result<Vec<u64>, DecodeError> {
    let unclear = || DecodeError::Input {
        input: spec.name.clone(),
        detail: format!(
            "shape {} does not follow from a body of {bytes} bytes: send a JSON header",
            spec.shape_text()
        ),
    };
    let fixed =
        spec.shape.iter().try_fold(spec.datatype.size().unwrap_or(1) as u64, |size, dim| {
            if let Dim::Fixed(dim) = dim { size.checked_mul(*dim) } else { Some(size) }
        });
    let unknown = spec.shape.iter().filter(|dim| **dim == Dim::Any).count();
    let fixed = fixed.filter(|&fixed| fixed > 0 && unknown <= 1).ok_or_else(unclear)?;
    if unknown == 1 && !(bytes as u64).is_multiple_of(fixed) {
        return Err(unclear());
    }
    let size = |dim: &Dim| if let Dim::Fixed(dim) = dim { *dim } else { bytes as u64 / fixed };
    Ok(spec.shape.iter().map(size).collect())
}

/// Turn inputs into tensors; binary ones are slices of what follows the JSON.
fn tensors(
    cursor: &Cursor<'_>,
    inputs: Vec<Input<'_>>,
    mut binary: Bytes,
) -> Result<Vec<(String, Tensor)>, DecodeError> {
    let shared = |input: &Input<'_>| input.parameters.has(SHARED_MEMORY);
    check_inputs(inputs.iter().map(|input| (input.name.as_str(), shared(input))))?;
    let mut tensors = Vec::with_capacity(inputs.len());
    for mut input in inputs {
        let failed = |detail: String| DecodeError::Input { input: clip(&input.name), detail };
        let size = input.parameters.take_count("binary_data_size").map_err(failed)?;
        let tensor = match (input.data, size) {
            (None, None) => {
                return Err(failed("has neither `data` nor `binary_data_size`".into()));
            }
            (None, Some(size)) => {
                let left = binary.len();
                let size = usize::try_from(size).ok().filter(|&size| size <= left);
                let size = size.ok_or_else(|| {
                    failed(format!(
                        "binary_data_size is more than the {left} bytes that are left after the \
                         JSON; is Inference-Header-Content-Length right?"
                    ))
                })?;
                let data = binary.split_to(size);
                Tensor::new(input.datatype, &input.shape, data)
                    .map_err(|source| DecodeError::Tensor { input: clip(&input.name), source })?
            }
            (_, Some(_)) => {
                return Err(failed("has both `data` and `binary_data_size`".into()));
            }
            (Some(unread), None) => {
                let read = data::read(unread.text, input.datatype, &input.shape);
                read.map_err(|error| match cursor.fault(unread, &error) {
                    DecodeError::Request(detail) => failed(detail),
                    invalid => invalid,
                })?
            }
        };
        tensors.push((input.name, tensor));
    }
    if binary.is_empty() {
        return Ok(tensors);
    }
    let text = format!("the body has {} bytes more than its inputs declare", binary.len());
    Err(DecodeError::Request(text))
}

/// Names of the wanted outputs, and which of them say how they want to be written.
fn outputs(all: Vec<Output>) -> Result<(Vec<String>, Flags), DecodeError> {
    let mut names = Vec::with_capacity(all.len());
    let mut flags = Vec::new();
    let mut seen = HashSet::with_capacity(all.len());
    for mut output in all {
        let failed = |detail: &str| {
            DecodeError::Request(format!("output `{}`: {detail}", clip(&output.name)))
        };
        if !seen.insert(output.name.clone()) {
            return Err(failed("comes twice"));
        }
        for (key, what) in [("classification", "classification"), (SHARED_MEMORY, "shared memory")]
        {
            if output.parameters.has(key) {
                return Err(failed(&format!("{what} is not supported")));
            }
        }
        let binary = output.parameters.take_bool("binary_data").map_err(|text| failed(&text))?;
        flags.extend(binary.map(|binary| (output.name.clone(), binary)));
        names.push(output.name);
    }
    Ok((names, flags))
}
