//! ONNX models as bytes.
//!
//! Inputs and outputs are called `x` and `y` unless a function says otherwise.
//! A dimension of -1 is dynamic.

mod builder;
mod nets;

use prost::Message as _;
use tract_onnx::pb::{GraphProto, TensorProto};
use wick_package::Datatype;

pub use nets::{conv_net, dense, quantised_net, resnet50_shaped};

use self::builder::{Builder, attribute_graph, node, value_info};

/// `y = x`, for any datatype.
pub fn identity(datatype: Datatype, shape: &[i64]) -> Vec<u8> {
    let mut model = Builder::new();
    model.input("x", datatype, shape);
    model.node("Identity", &["x"], "y", vec![]);
    model.output("y", datatype, shape);
    model.build()
}

/// `y = x + value` on FP32.
pub fn add_scalar(value: f32, shape: &[i64]) -> Vec<u8> {
    let mut model = Builder::new();
    model.input("x", Datatype::Fp32, shape);
    model.floats("value", &[], &[value]);
    model.node("Add", &["x", "value"], "y", vec![]);
    model.output("y", Datatype::Fp32, shape);
    model.build()
}

/// `y` is the sum of all of `x`, on FP32: much to read and nothing to compute.
pub fn sum(shape: &[i64]) -> Vec<u8> {
    let mut model = Builder::new();
    model.input("x", Datatype::Fp32, shape);
    model.node("ReduceSum", &["x"], "y", vec![]);
    model.output("y", Datatype::Fp32, &vec![1; shape.len()]);
    model.build()
}

/// `y = a - b` on FP32: two inputs whose order matters.
pub fn subtract(shape: &[i64]) -> Vec<u8> {
    let mut model = Builder::new();
    model.input("a", Datatype::Fp32, shape);
    model.input("b", Datatype::Fp32, shape);
    model.node("Sub", &["a", "b"], "y", vec![]);
    model.output("y", Datatype::Fp32, shape);
    model.build()
}

/// Two outputs that are handed through: `y` is the input itself, `z` a constant of
/// the model, both without a node that copies them.
pub fn aliases(shape: &[i64]) -> Vec<u8> {
    let mut model = Builder::new();
    model.input("x", Datatype::Fp32, shape);
    model.floats("z", &[3], &[1.0, 2.0, 3.0]);
    model.node("Neg", &["x"], "minus", vec![]);
    model.output("minus", Datatype::Fp32, shape);
    model.output("x", Datatype::Fp32, shape);
    model.output("z", Datatype::Fp32, &[3]);
    model.build()
}

/// `y = x[indices]` along the first dimension; an index that is out of range fails
/// while the model runs, not when it is checked.
pub fn gather(rows: i64) -> Vec<u8> {
    let mut model = Builder::new();
    model.input("x", Datatype::Int64, &[-1, 1]);
    let table: Vec<f32> = (0..rows).map(|row| row as f32).collect();
    model.floats("table", &[rows], &table);
    model.node("Gather", &["table", "x"], "y", vec![]);
    model.output("y", Datatype::Fp32, &[-1, 1]);
    model.build()
}

/// An `If`: `y` is `x + 1` when `cond` holds and `x - 1` otherwise, on FP32 of
/// shape `[2]`.
pub fn with_if() -> Vec<u8> {
    let branch = |op: &str| GraphProto {
        name: op.to_lowercase(),
        node: vec![node(op, &["x", "one"], op, vec![])],
        output: vec![value_info(op, Datatype::Fp32, &[2])],
        ..GraphProto::default()
    };
    let mut model = Builder::new();
    model.input("cond", Datatype::Bool, &[]);
    model.input("x", Datatype::Fp32, &[2]);
    model.floats("one", &[], &[1.0]);
    let branches = vec![
        attribute_graph("then_branch", branch("Add")),
        attribute_graph("else_branch", branch("Sub")),
    ];
    model.node("If", &["cond"], "y", branches);
    model.output("y", Datatype::Fp32, &[2]);
    model.build()
}

/// A quantised layer in QDQ form: FP32 `[1, 8]` in, FP32 `[1, 4]` out, INT8 between.
pub fn qdq_int8() -> Vec<u8> {
    let mut model = Builder::new();
    model.input("x", Datatype::Fp32, &[1, 8]);
    model.floats("scale", &[], &[0.1]);
    model.tensor("zero", Datatype::Int8, &[], vec![0]);
    let weights: Vec<u8> = (0..32_u8).map(|i| i.wrapping_mul(7)).collect();
    model.tensor("weights", Datatype::Int8, &[8, 4], weights);
    model.node("QuantizeLinear", &["x", "scale", "zero"], "xq", vec![]);
    model.node("DequantizeLinear", &["xq", "scale", "zero"], "xd", vec![]);
    model.node("DequantizeLinear", &["weights", "scale", "zero"], "wd", vec![]);
    model.node("MatMul", &["xd", "wd"], "y", vec![]);
    model.output("y", Datatype::Fp32, &[1, 4]);
    model.build()
}

/// `y = x + weights`, with the weights in another file. The name of that file is
/// `location`; it must hold four FP32 numbers.
pub fn external_data(location: &str) -> Vec<u8> {
    let mut model = Builder::new();
    model.input("x", Datatype::Fp32, &[4]);
    model.initializer(TensorProto {
        name: "weights".into(),
        dims: vec![4],
        data_type: builder::onnx_type(Datatype::Fp32),
        data_location: Some(1),
        external_data: vec![tract_onnx::pb::StringStringEntryProto {
            key: "location".into(),
            value: location.into(),
        }],
        ..TensorProto::default()
    });
    model.node("Add", &["x", "weights"], "y", vec![]);
    model.output("y", Datatype::Fp32, &[4]);
    model.build()
}

/// A model whose only node is an operator that nobody has.
pub fn unknown_operator() -> Vec<u8> {
    let mut model = Builder::new();
    model.input("x", Datatype::Fp32, &[1]);
    model.node("Frobnicate", &["x"], "y", vec![]);
    model.output("y", Datatype::Fp32, &[1]);
    model.build()
}

/// A model that declares an input without a shape.
pub fn without_shape() -> Vec<u8> {
    let mut model = Builder::new();
    model.input("x", Datatype::Fp32, &[1]);
    model.forget_shape("x");
    model.node("Neg", &["x"], "y", vec![]);
    model.output("y", Datatype::Fp32, &[1]);
    model.build()
}

/// A protobuf field with bytes, to be put behind a model: a message that is there in parts is joined
/// by every reader.
pub fn field(number: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    let mut len = body.len();
    while len >= 0x80 {
        bytes.push((len as u8 & 0x7f) | 0x80);
        len >>= 7;
    }
    bytes.push(len as u8);
    bytes.extend_from_slice(body);
    bytes
}

fn encode(model: &tract_onnx::pb::ModelProto) -> Vec<u8> {
    model.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_call_gives_the_same_bytes() {
        assert_eq!(dense(8, 2), dense(8, 2));
        assert_eq!(with_if(), with_if());
    }

    #[test]
    fn large_models_have_the_size_that_they_promise() {
        let megabytes = |bytes: Vec<u8>| bytes.len() / 1_000_000;
        assert_eq!(megabytes(dense(1024, 12)), 50);
        assert!((95..110).contains(&megabytes(resnet50_shaped())));
    }
}
