//! What can go wrong when a graph is loaded or run.

use wick_package::Reason;

/// A graph that could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file can't be read, is empty, truncated or no model.
    #[error("graph `{graph}` is not a model that {backend} can read: {detail}")]
    Invalid { graph: String, backend: String, detail: String },
    /// A good model, but not for the backends that are here.
    #[error("graph `{graph}` needs {need}, and {detail}")]
    Unsupported { graph: String, need: String, detail: String },
    /// None of the devices that the package permits is here.
    #[error("graph `{graph}` may run on {wanted}, and this machine has {have}{reasons}")]
    DeviceUnavailable {
        graph: String,
        wanted: String,
        have: String,
        /// Why others are not used; empty, or from a semicolon on.
        reasons: String,
    },
    /// The backend runs less of the graph on the device than the package demands.
    #[error("graph `{graph}` runs only {share:.2} on {device}; its package demands {min:.2}")]
    DeviceShare { graph: String, device: String, share: f32, min: f32 },
    /// The device is there, and the graph can't be loaded onto it.
    #[error("graph `{graph}` cannot be loaded on {device}: {detail}")]
    DeviceFailed { graph: String, device: String, detail: String },
    #[error("no backend `{backend}` for graph `{graph}`: {hint}")]
    BackendMissing { graph: String, backend: String, hint: String },
    /// A backend that is installed but can't be loaded.
    #[error("backend {backend} at {path} cannot be used: {detail}")]
    BackendBroken { backend: String, path: String, detail: String },
    /// It rested, and its file is no longer the one that it was loaded from.
    #[error("the file of graph `{graph}` has changed while the graph rested: load the model again")]
    Changed { graph: String },
    /// Weights in a file that is not where the model is read.
    #[error(
        "graph `{graph}` has weights in `{file}`, which is not beside it: an image has models of \
         one file only. Make one file of it with `wick import`, or in Python with \
         `onnx.save(onnx.load(PATH), PATH)`"
    )]
    WeightsElsewhere { graph: String, file: String },
    #[error("cannot read graph `{graph}` at {path}")]
    Io { graph: String, path: String, source: std::io::Error },
}

/// A request that a graph did not answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum InferError {
    /// Wrong number, name, datatype or shape of inputs.
    #[error("{0}")]
    BadInput(String),
    #[error("graph `{graph}` failed in {backend}: {detail}")]
    Backend { graph: String, backend: String, detail: String },
    /// The caller left or ran out of time.
    #[error("the inference was cancelled")]
    Cancelled,
    /// The bounded queue before the graph is full.
    #[error("graph `{0}` has too many inferences waiting; try again later")]
    Busy(String),
    /// The graph rests, or is shutting down.
    #[error("graph `{0}` is unloaded")]
    Unloaded(String),
}

impl Reason for LoadError {
    fn code(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "graph-invalid",
            Self::Unsupported { .. } => "graph-unsupported",
            Self::DeviceUnavailable { .. } => "device-unavailable",
            Self::DeviceShare { .. } => "device-share",
            Self::DeviceFailed { .. } => "device-failed",
            Self::BackendMissing { .. } => "backend-missing",
            Self::BackendBroken { .. } => "backend-broken",
            Self::Changed { .. } => "graph-changed",
            Self::WeightsElsewhere { .. } => "weights-elsewhere",
            Self::Io { .. } => "graph-unreadable",
        }
    }
}

impl Reason for InferError {
    fn code(&self) -> &'static str {
        match self {
            Self::BadInput(_) => "bad-input",
            Self::Backend { .. } => "backend-failed",
            Self::Cancelled => "cancelled",
            Self::Busy(_) => "busy",
            Self::Unloaded(_) => "unloaded",
        }
    }
}
