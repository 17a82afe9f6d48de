//! A model under construction: protobuf messages with the fields that matter.

use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};
use wick_package::Datatype;

/// The operator set: the newest that every backend here tests.
const OPSET: i64 = 17;

/// The file format's version that goes with it.
const IR_VERSION: i64 = 8;

pub(super) struct Builder {
    graph: GraphProto,
    random: Random,
}

/// Pseudo-random numbers, the same on every machine.
struct Random(u64);

// === impl Builder ===

impl Builder {
    pub(super) fn new() -> Self {
        let graph = GraphProto { name: "graph".into(), ..GraphProto::default() };
        Self { graph, random: Random(0x5eed) }
    }

    pub(super) fn input(&mut self, name: &str, datatype: Datatype, shape: &[i64]) {
        self.graph.input.push(value_info(name, datatype, shape));
    }

    pub(super) fn output(&mut self, name: &str, datatype: Datatype, shape: &[i64]) {
        self.graph.output.push(value_info(name, datatype, shape));
    }

    pub(super) fn forget_shape(&mut self, input: &str) {
        for info in self.graph.input.iter_mut().filter(|info| info.name == input) {
            if let Some(type_proto::Value::TensorType(tensor)) =
                info.r#type.as_mut().and_then(|proto| proto.value.as_mut())
            {
                tensor.shape = None;
            }
        }
    }

    pub(super) fn node(
        &mut self,
        op: &str,
        inputs: &[&str],
        output: &str,
        attributes: Vec<AttributeProto>,
    ) {
        self.graph.node.push(node(op, inputs, output, attributes));
    }

    pub(super) fn initializer(&mut self, tensor: TensorProto) {
        self.graph.initializer.push(tensor);
    }

    pub(super) fn tensor(&mut self, name: &str, datatype: Datatype, dims: &[i64], data: Vec<u8>) {
        self.initializer(TensorProto {
            name: name.to_owned(),
            dims: dims.to_vec(),
            data_type: onnx_type(datatype),
            raw_data: data,
            ..TensorProto::default()
        });
    }

    pub(super) fn floats(&mut self, name: &str, dims: &[i64], values: &[f32]) {
        let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.tensor(name, Datatype::Fp32, dims, data);
    }

    /// Random weights whose layer neither grows nor shrinks the signal: uniform
    /// with a variance of two over the fan-in, as ReLU layers want it.
    pub(super) fn weights(&mut self, name: &str, dims: &[i64], fan_in: i64) {
        let bound = (6.0 / fan_in as f32).sqrt();
        let count: i64 = dims.iter().product();
        let mut data = Vec::with_capacity(count as usize * 4);
        for _ in 0..count {
            data.extend_from_slice(&(self.random.unit() * bound).to_le_bytes());
        }
        self.tensor(name, Datatype::Fp32, dims, data);
    }

    pub(super) fn build(self) -> Vec<u8> {
        super::encode(&ModelProto {
            ir_version: IR_VERSION,
            producer_name: "wick-testing".into(),
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
            graph: Some(self.graph),
            ..ModelProto::default()
        })
    }
}

// === impl Random ===

impl Random {
    /// The next number, between -1 and 1.
    fn unit(&mut self) -> f32 {
        // SplitMix64: one multiplication chain a number, good enough for weights.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    }
}

pub(super) fn node(
    op: &str,
    inputs: &[&str],
    output: &str,
    attribute: Vec<AttributeProto>,
) -> NodeProto {
    NodeProto {
        op_type: op.to_owned(),
        name: format!("make_{output}"),
        input: inputs.iter().map(|&name| name.to_owned()).collect(),
        output: vec![output.to_owned()],
        attribute,
        ..NodeProto::default()
    }
}

pub(super) fn attribute_ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Ints as i32,
        ints: values.to_vec(),
        ..AttributeProto::default()
    }
}

pub(super) fn attribute_graph(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Graph as i32,
        g: Some(graph),
        ..AttributeProto::default()
    }
}

pub(super) fn value_info(name: &str, datatype: Datatype, shape: &[i64]) -> ValueInfoProto {
    let dim = shape.iter().enumerate().map(|(axis, &size)| Dimension {
        value: Some(match size {
            // The first dimension is the batch and means the same in every tensor.
            -1 if axis == 0 => dimension::Value::DimParam("batch".to_owned()),
            -1 => dimension::Value::DimParam(format!("{name}_{axis}")),
            size => dimension::Value::DimValue(size),
        }),
        ..Dimension::default()
    });
    let tensor = type_proto::Tensor {
        elem_type: onnx_type(datatype),
        shape: Some(TensorShapeProto { dim: dim.collect() }),
    };
    let value = Some(type_proto::Value::TensorType(tensor));
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto { value, ..TypeProto::default() }),
        ..ValueInfoProto::default()
    }
}

pub(super) fn onnx_type(datatype: Datatype) -> i32 {
    let onnx = match datatype {
        Datatype::Bool => DataType::Bool,
        Datatype::Uint8 => DataType::Uint8,
        Datatype::Uint16 => DataType::Uint16,
        Datatype::Uint32 => DataType::Uint32,
        Datatype::Uint64 => DataType::Uint64,
        Datatype::Int8 => DataType::Int8,
        Datatype::Int16 => DataType::Int16,
        Datatype::Int32 => DataType::Int32,
        Datatype::Int64 => DataType::Int64,
        Datatype::Fp16 => DataType::Float16,
        Datatype::Bf16 => DataType::Bfloat16,
        Datatype::Fp32 => DataType::Float,
        Datatype::Fp64 => DataType::Double,
        Datatype::Bytes => DataType::String,
    };
    onnx as i32
}
