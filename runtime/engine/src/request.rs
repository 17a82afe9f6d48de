//! One inference, independent of the protocol that brought it.

use wick_nn::Tensor;

/// A request to a model.
#[derive(Debug, Clone, Default)]
pub struct InferRequest {
    pub id: Option<String>,
    pub parameters: Vec<(String, Parameter)>,
    /// In the order of the request.
    pub inputs: Vec<(String, Tensor)>,
    /// Outputs that the caller wants; empty means all.
    pub outputs: Vec<String>,
}

/// A model's answer.
#[derive(Debug, Clone, Default)]
pub struct InferResponse {
    pub parameters: Vec<(String, Parameter)>,
    pub outputs: Vec<(String, Tensor)>,
}

/// A value of `parameters` in the Open Inference Protocol.
#[derive(Debug, Clone, PartialEq)]
pub enum Parameter {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
}
