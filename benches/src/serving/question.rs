//! The models that the servers are compared on, with an input and its right answer.

use std::fs;
use std::path::PathBuf;

use anyhow::ensure;
use bytes::Bytes;
use serde_json::{Value, json};
use wick_testing::onnx;

use crate::direct::{Floor, Input};
use crate::packages;
use crate::setup::Setup;

use super::message;

/// Floats of the model that only sums: a picture of 224 x 224 in three colours.
pub const SUM_FLOATS: i64 = 150_528;

/// The model that wick serves by a handler as well.
pub const TINY: &str = "tiny";

/// How far an answer may be from ONNX Runtime's: in parts of it, and in all.
const RELATIVE: f32 = 1e-3;
const ABSOLUTE: f32 = 1e-5;

/// How a request is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    Json,
    Binary,
    Grpc,
}

/// A model with one input and one output.
pub struct Question {
    pub name: &'static str,
    pub model: PathBuf,
    pub input: Input,
    pub input_name: &'static str,
    pub output_name: &'static str,
    /// As Triton's configuration wants them: -1 for any size.
    pub dims: [&'static str; 2],
    /// Whether an inference is worth a thread of its own in a Python server.
    pub threaded: bool,
    /// How it is asked: what is not measured need not work.
    pub protocols: &'static [Protocol],
    right: Vec<f32>,
}

// === impl Protocol ===

impl Protocol {
    pub const ALL: [Self; 3] = [Self::Json, Self::Binary, Self::Grpc];

    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Binary => "binary",
            Self::Grpc => "grpc",
        }
    }
}

// === impl Question ===

impl Question {
    /// Four floats, one addition: all that is measured is the server.
    pub fn tiny(setup: &Setup, floor: &Floor) -> anyhow::Result<Self> {
        let model = setup.folder("models")?.join("tiny.onnx");
        fs::write(&model, onnx::add_scalar(1.0, &[1, 4]))?;
        let input = Input::F32(vec![1, 4], vec![1.0, 2.5, -3.0, 4.25]);
        let names = [TINY, "x", "y"];
        Self::new(floor, names, model, input, ["1, 4", "1, 4"])
    }

    /// Magika: a real model of 5 to 20 ms on one core, with 8 KB for each of as many files as that takes.
    pub fn large(setup: &Setup, floor: &Floor) -> anyhow::Result<Self> {
        let model = setup.models.join("magika/model.onnx");
        let names = ["large", "bytes", "target_label"];
        let dims = ["-1, 2048", "-1, 214"];
        let input = packages::magika_input(packages::magika_files(&model, floor)?);
        Ok(Self { threaded: true, ..Self::new(floor, names, model, input, dims)? })
    }

    /// Much to read and nothing to compute.
    pub fn sum(setup: &Setup, floor: &Floor) -> anyhow::Result<Self> {
        let model = setup.folder("models")?.join("sum.onnx");
        fs::write(&model, onnx::sum(&[1, SUM_FLOATS]))?;
        let values = (0..SUM_FLOATS).map(|i| (i % 255) as f32 / 255.0).collect();
        let input = Input::F32(vec![1, SUM_FLOATS], values);
        let names = ["sum", "x", "y"];
        let dims = ["1, 150528", "1, 1"];
        let protocols = &[Protocol::Json];
        Ok(Self { protocols, ..Self::new(floor, names, model, input, dims)? })
    }

    fn new(
        floor: &Floor,
        [name, input_name, output_name]: [&'static str; 3],
        model: PathBuf,
        input: Input,
        dims: [&'static str; 2],
    ) -> anyhow::Result<Self> {
        let right = floor.load(&model, 1, &input)?.run()?;
        let protocols = &Protocol::ALL;
        Ok(Self {
            name,
            model,
            input,
            input_name,
            output_name,
            dims,
            threaded: false,
            protocols,
            right,
        })
    }

    /// An answer's values must be those of ONNX Runtime.
    pub fn check(&self, got: &[f32]) -> anyhow::Result<()> {
        let right = &self.right;
        ensure!(got.len() == right.len(), "{} values, not {}", got.len(), right.len());
        let close = |(a, b): (&f32, &f32)| (a - b).abs() <= ABSOLUTE + RELATIVE * b.abs();
        ensure!(got.iter().zip(right).all(close), "other values than ONNX Runtime's");
        Ok(())
    }

    /// A request to the model under the name that a server has it by, with its head.
    pub fn request(&self, protocol: Protocol, model: &str) -> Bytes {
        match protocol {
            Protocol::Json => {
                let json = self.json(json!({"data": self.values()}), json!({})).to_string();
                self.post(model, "Content-Type: application/json\r\n", json.as_bytes())
            }
            Protocol::Binary => {
                let tensor = self.input.bytes();
                let size = json!({"parameters": {"binary_data_size": tensor.len()}});
                let json = self.json(size, json!({"binary_data_output": true})).to_string();
                let head = format!(
                    "Content-Type: application/octet-stream\r\n\
                     Inference-Header-Content-Length: {}\r\n",
                    json.len(),
                );
                self.post(model, &head, &[json.as_bytes(), &tensor].concat())
            }
            Protocol::Grpc => message::infer_request(model, self.input_name, &self.input),
        }
    }

    fn post(&self, model: &str, head: &str, body: &[u8]) -> Bytes {
        let head = format!(
            "POST /v2/models/{model}/infer HTTP/1.1\r\nHost: localhost\r\n{head}\
             Content-Length: {}\r\n\r\n",
            body.len(),
        );
        [head.as_bytes(), body].concat().into()
    }

    /// The request's JSON, with an identifier, so that no server has to make one.
    fn json(&self, how: Value, parameters: Value) -> Value {
        let mut input = json!({
            "name": self.input_name,
            "datatype": self.input.datatype(),
            "shape": self.input.shape(),
        });
        if let (Some(input), Value::Object(how)) = (input.as_object_mut(), how) {
            input.extend(how);
        }
        json!({"id": "1", "parameters": parameters, "inputs": [input]})
    }

    fn values(&self) -> Value {
        match &self.input {
            Input::F32(_, values) => json!(values),
            Input::I32(_, values) => json!(values),
        }
    }
}
