//! What can go wrong when a model is loaded or called.

use wick_package::Reason;

/// A package that could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Graph(#[from] wick_nn::LoadError),
    /// The component is missing, empty, truncated or garbage.
    #[error("component {path} of model `{model}` is not valid WebAssembly: {detail}")]
    Component { model: String, path: String, detail: String },
    /// The component imports what the host lacks, or exports no known world.
    #[error("component {path} of model `{model}` does not fit this host: {detail}")]
    World { model: String, path: String, detail: String },
    /// The package asks for what the host does not grant, where that is fatal.
    #[error("model `{model}` wants {what}, which is not granted: {hint}")]
    NotGranted { model: String, what: String, hint: String },
    #[error("warming up model `{model}` failed: {detail}")]
    Warmup { model: String, detail: String },
    #[error("cannot read {path} of model `{model}`")]
    Io { model: String, path: String, source: std::io::Error },
    #[error("the WebAssembly engine could not be set up: {0}")]
    Engine(String),
}

/// A request that was not answered. The front end turns each into a status.
#[derive(Debug, Clone, thiserror::Error)]
pub enum InferError {
    #[error("{0}")]
    BadInput(String),
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    TooLarge(String),
    #[error("{0}")]
    Unavailable(String),
    #[error("the request ran out of time after {0:?}")]
    Deadline(std::time::Duration),
    #[error("the request was cancelled")]
    Cancelled,
    /// The guest trapped, ran out of memory or stack, or broke a host rule.
    #[error("the handler of model `{model}` failed: {detail}")]
    Guest { model: String, detail: String },
    /// The handler says that it failed.
    #[error("{0}")]
    Internal(String),
    #[error("{0}")]
    Backend(String),
}

impl Reason for LoadError {
    fn code(&self) -> &'static str {
        match self {
            Self::Graph(error) => error.code(),
            Self::Component { .. } => "component-invalid",
            Self::World { .. } => "component-world",
            Self::NotGranted { .. } => "not-granted",
            Self::Warmup { .. } => "warmup-failed",
            Self::Io { .. } => "package-unreadable",
            Self::Engine(_) => "engine",
        }
    }
}

impl Reason for InferError {
    fn code(&self) -> &'static str {
        match self {
            Self::BadInput(_) => "bad-input",
            Self::NotFound(_) => "not-found",
            Self::TooLarge(_) => "too-large",
            Self::Unavailable(_) => "unavailable",
            Self::Deadline(_) => "deadline",
            Self::Cancelled => "cancelled",
            Self::Guest { .. } => "guest-failed",
            Self::Internal(_) => "internal",
            Self::Backend(_) => "backend-failed",
        }
    }
}
