//! What a handler is asked.

use crate::{Parameter, Result, ResultExt as _, Tensor, Tensors};

/// One inference request. The host has checked its inputs against the package's
/// `[[input]]`: those that are written there are present, with their datatype and shape.
///
/// ```
/// use wick_guest::{ErrorKind, Request, Tensor};
///
/// let request = Request::new()
///     .with_id("7")
///     .with_input("image", Tensor::new(&[3], [9_u8, 8, 7])?)
///     .with_parameter("threshold", 0.5);
/// assert_eq!(request.id(), Some("7"));
/// assert_eq!(request.input("image")?.to_vec::<u8>()?, [9, 8, 7]);
///
/// let error = request.input("picture").unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::BadInput);
/// # Ok::<(), wick_guest::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub(crate) id: Option<String>,
    pub(crate) parameters: Vec<(String, Parameter)>,
    pub(crate) inputs: Tensors,
    pub(crate) outputs: Vec<String>,
}

// === impl Request ===

impl Request {
    /// An empty request, for tests.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same request with an id.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// The same request with one more input.
    #[must_use]
    pub fn with_input(mut self, name: impl Into<String>, tensor: impl Into<Tensor>) -> Self {
        self.inputs.push(name, tensor);
        self
    }

    /// The same request with one more parameter.
    #[must_use]
    pub fn with_parameter(mut self, name: impl Into<String>, value: impl Into<Parameter>) -> Self {
        self.parameters.push((name.into(), value.into()));
        self
    }

    /// The same request, asking for this output. Without any it asks for all.
    #[must_use]
    pub fn with_output(mut self, name: impl Into<String>) -> Self {
        self.outputs.push(name.into());
        self
    }

    /// What the caller calls this request.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// An input by name. Pass the reference on, or read it.
    ///
    /// # Errors
    /// There is none: the caller's mistake, status 400.
    pub fn input(&self, name: &str) -> Result<&Tensor> {
        self.inputs.find(name).or_bad_input(format_args!("input `{name}` is missing"))
    }

    /// Inputs in the order of the request.
    pub fn inputs(&self) -> &Tensors {
        &self.inputs
    }

    /// A parameter by name, or none.
    pub fn parameter(&self, name: &str) -> Option<&Parameter> {
        self.parameters.iter().find(|(own, _)| own == name).map(|(_, value)| value)
    }

    /// Parameters in the order of the request.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &Parameter)> {
        self.parameters.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Whether the caller wants this output. The host drops what is not wanted, so a
    /// handler asks only where it saves work.
    ///
    /// ```
    /// use wick_guest::Request;
    ///
    /// assert!(Request::new().wants("label"));
    /// assert!(!Request::new().with_output("score").wants("label"));
    /// ```
    pub fn wants(&self, output: &str) -> bool {
        self.outputs.is_empty() || self.outputs.iter().any(|name| name == output)
    }
}
