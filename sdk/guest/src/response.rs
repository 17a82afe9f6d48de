//! What a handler answers.

use crate::{Parameter, Result, Tensor, Tensors};

/// The answer to a request: outputs and parameters, added one by one.
///
/// ```
/// use wick_guest::{Request, Response, Tensor};
///
/// let request = Request::new().with_input("x", Tensor::new(&[2], [1_i64, 2])?);
/// // A reference is enough: the bytes stay where they are.
/// let response = Response::new().output("y", request.input("x")?).parameter("cached", false);
/// assert_eq!(response.get("y")?.to_vec::<i64>()?, [1, 2]);
/// # Ok::<(), wick_guest::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Response {
    pub(crate) parameters: Vec<(String, Parameter)>,
    pub(crate) outputs: Tensors,
}

// === impl Response ===

impl Response {
    /// An answer without outputs.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same answer with one more output.
    #[must_use]
    pub fn output(mut self, name: impl Into<String>, tensor: impl Into<Tensor>) -> Self {
        self.outputs.push(name, tensor);
        self
    }

    /// The same answer with one more parameter.
    #[must_use]
    pub fn parameter(mut self, name: impl Into<String>, value: impl Into<Parameter>) -> Self {
        self.parameters.push((name.into(), value.into()));
        self
    }

    /// An output by name, as tests want it.
    ///
    /// # Errors
    /// There is none.
    pub fn get(&self, name: &str) -> Result<&Tensor> {
        self.outputs.get(name)
    }

    /// Outputs in their order.
    pub fn outputs(&self) -> &Tensors {
        &self.outputs
    }

    /// Parameters in their order.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &Parameter)> {
        self.parameters.iter().map(|(name, value)| (name.as_str(), value))
    }
}

impl From<Tensors> for Response {
    /// An answer with these outputs: all that a graph returned, for instance.
    fn from(outputs: Tensors) -> Self {
        Self { parameters: Vec::new(), outputs }
    }
}
