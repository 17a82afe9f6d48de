//! From an ONNX file to a plan that tract can run.

use std::path::Path;

use prost::Message as _;
use tract_onnx::model::ParseResult;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{ModelProto, NodeProto, TypeProto, ValueInfoProto, type_proto};
use tract_onnx::prelude::multithread::Executor;
use tract_onnx::prelude::*;
use wick_package::{Datatype, Dim, TensorSpec};

use super::plans::Plans;
use super::{NAME, REFUSAL, chain, convert};
use crate::backend::{GraphSource, SourceBytes};
use crate::error::LoadError;
use crate::skeleton::Skeleton;

/// Operators that tract has but that belong to ONNX Runtime: `If` is not run
/// faithfully, and int8 is ten times slower than there.
const ELSEWHERE: [&str; 9] = [
    "If",
    "ConvInteger",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "MatMulInteger",
    "QLinearConv",
    "QLinearMatMul",
    "QuantizeLinear",
    "QLinearAdd",
];

/// Longest name of a dynamic dimension that is given to tract. It parses names as
/// formulas, recursively, so that a hostile one could exhaust the stack.
const MAX_DIM_NAME: usize = 64;

/// A model that is ready to run.
pub(super) struct Loaded {
    pub plans: Plans,
    pub inputs: Vec<TensorSpec>,
    pub outputs: Vec<TensorSpec>,
}

/// Read, check, translate and optimise a model.
pub(super) fn load(source: &GraphSource, executor: Executor) -> Result<Loaded, LoadError> {
    let bytes = source.read()?;
    let invalid = |detail: String| source.invalid(NAME, detail);
    let skeleton = Skeleton::of(&bytes).map_err(invalid)?;
    skeleton.check_weights(source)?;
    let onnx = onnx().with_ignore_output_shapes(true).with_ignore_value_info(true);
    let elsewhere = skeleton.operators.iter().find(|operator| {
        ELSEWHERE.contains(&operator.as_str()) || !onnx.op_register.0.contains_key(*operator)
    });
    if let Some(operator) = elsewhere {
        let need = format!("ONNX Runtime for its operator `{operator}`");
        return Err(source.unsupported(need, REFUSAL));
    }
    let mut proto = ModelProto::decode(bytes.as_ref()).map_err(|e| invalid(e.to_string()))?;
    drop(bytes);
    let (inputs, outputs) = interface(&proto).map_err(|refusal| match refusal {
        Refusal::Invalid(detail) => source.invalid(NAME, detail),
        Refusal::Unsupported(need) => source.unsupported(need, REFUSAL),
    })?;
    name_dimensions(&mut proto);
    detach_outputs(&mut proto);
    let plans = parse(&onnx, &proto, folder(source))
        .and_then(|model| Plans::new(model, &inputs, executor))
        .map_err(|error| invalid(format!("{}; ONNX Runtime may read it", chain(&error))))?;
    Ok(Loaded { plans, inputs, outputs })
}

fn parse(
    onnx: &tract_onnx::Onnx,
    proto: &ModelProto,
    folder: Option<&str>,
) -> TractResult<InferenceModel> {
    let ParseResult { model, unresolved_inputs, .. } = onnx.parse(proto, folder)?;
    match unresolved_inputs.first() {
        Some(name) => Err(TractError::msg(format!("a node reads `{name}`, which nothing makes"))),
        None => Ok(model),
    }
}

/// The folder in which weights of another file are looked for.
fn folder(source: &GraphSource) -> Option<&str> {
    match &source.bytes {
        // Beside a model that must have a digest, they would have none.
        SourceBytes::File { path, offset: 0, digest: None, .. } => {
            path.parent().and_then(Path::to_str)
        }
        _ => None,
    }
}

/// Why the declared inputs and outputs can't be served.
enum Refusal {
    Invalid(String),
    Unsupported(String),
}

/// Inputs and outputs as the model declares them. Inputs with an initial value are
/// weights.
fn interface(proto: &ModelProto) -> Result<(Vec<TensorSpec>, Vec<TensorSpec>), Refusal> {
    let missing = || Refusal::Invalid("the file holds no ONNX graph".to_owned());
    let graph = proto.graph.as_ref().ok_or_else(missing)?;
    let is_weight = |name: &str| graph.initializer.iter().any(|tensor| tensor.name == name);
    let inputs = graph.input.iter().filter(|info| !is_weight(&info.name));
    let inputs = inputs.map(|info| spec(info, "input")).collect::<Result<_, _>>()?;
    let outputs = graph.output.iter().map(|info| spec(info, "output"));
    Ok((inputs, outputs.collect::<Result<_, _>>()?))
}

fn spec(info: &ValueInfoProto, what: &str) -> Result<TensorSpec, Refusal> {
    let name = &info.name;
    let Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), .. }) = &info.r#type
    else {
        return Err(Refusal::Unsupported(format!(
            "ONNX Runtime, because {what} `{name}` is no tensor"
        )));
    };
    let datatype = datatype(tensor.elem_type)
        .filter(|datatype| convert::datum_type(*datatype).is_some())
        .ok_or_else(|| {
            let text = DataType::try_from(tensor.elem_type).map_or("?", |t| t.as_str_name());
            Refusal::Unsupported(format!("ONNX Runtime for {text}, the type of {what} `{name}`"))
        })?;
    let Some(shape) = &tensor.shape else {
        if what == "output" {
            return Ok(TensorSpec { name: name.clone(), datatype, shape: Vec::new() });
        }
        let need = format!("a declared shape of input `{name}` (export it with shapes)");
        return Err(Refusal::Unsupported(need));
    };
    let dims = shape.dim.iter().map(|dim| match dim.value {
        Some(dimension::Value::DimValue(size)) => u64::try_from(size).map_or(Dim::Any, Dim::Fixed),
        _ => Dim::Any,
    });
    Ok(TensorSpec { name: name.clone(), datatype, shape: dims.collect() })
}

fn datatype(onnx: i32) -> Option<Datatype> {
    Some(match DataType::try_from(onnx).ok()? {
        DataType::Bool => Datatype::Bool,
        DataType::Uint8 => Datatype::Uint8,
        DataType::Uint16 => Datatype::Uint16,
        DataType::Uint32 => Datatype::Uint32,
        DataType::Uint64 => Datatype::Uint64,
        DataType::Int8 => Datatype::Int8,
        DataType::Int16 => Datatype::Int16,
        DataType::Int32 => Datatype::Int32,
        DataType::Int64 => Datatype::Int64,
        DataType::Float16 => Datatype::Fp16,
        DataType::Bfloat16 => Datatype::Bf16,
        DataType::Float => Datatype::Fp32,
        DataType::Double => Datatype::Fp64,
        DataType::String => Datatype::Bytes,
        _ => return None,
    })
}

/// Give every dynamic dimension of an input a name of its own if it has none that
/// tract can use, so that tract plans for any size of it.
fn name_dimensions(proto: &mut ModelProto) {
    let inputs = proto.graph.iter_mut().flat_map(|graph| &mut graph.input);
    for (input, info) in inputs.enumerate() {
        let Some(type_proto::Value::TensorType(tensor)) =
            info.r#type.as_mut().and_then(|proto| proto.value.as_mut())
        else {
            continue;
        };
        let dims = tensor.shape.iter_mut().flat_map(|shape| &mut shape.dim);
        for (axis, dim) in dims.enumerate() {
            if !is_usable(dim) {
                let name = format!("any_{input}_{axis}");
                dim.value = Some(dimension::Value::DimParam(name));
            }
        }
    }
}

/// Let no output be an input or a weight itself: tract forgets its type then.
fn detach_outputs(proto: &mut ModelProto) {
    let Some(graph) = &mut proto.graph else { return };
    let inputs = graph.input.iter().map(|info| &info.name);
    let given: Vec<String> =
        inputs.chain(graph.initializer.iter().map(|tensor| &tensor.name)).cloned().collect();
    for (index, output) in graph.output.iter_mut().enumerate() {
        if given.contains(&output.name) {
            let name = format!("wick_output_{index}");
            graph.node.push(NodeProto {
                op_type: "Identity".to_owned(),
                name: name.clone(),
                input: vec![output.name.clone()],
                output: vec![name.clone()],
                ..NodeProto::default()
            });
            output.name = name;
        }
    }
}

fn is_usable(dim: &Dimension) -> bool {
    match &dim.value {
        Some(dimension::Value::DimValue(size)) => *size >= 0,
        Some(dimension::Value::DimParam(name)) => {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let starts = name.starts_with(|c: char| c.is_ascii_alphabetic());
            starts && name.len() <= MAX_DIM_NAME && name.chars().all(plain)
        }
        None => false,
    }
}
