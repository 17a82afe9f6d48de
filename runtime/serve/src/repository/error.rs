//! What can go wrong when models are added, loaded and reloaded.

use std::path::PathBuf;

use wick_engine::LoadError;
use wick_package::{OpenError, Reason};

/// A model that is not served as asked. A model that was live goes on serving.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    #[error("cannot open the package at {path}")]
    Open { path: PathBuf, source: Box<OpenError> },
    #[error(
        "two packages are version {version} of `{model}`: {first} and {second}; give one another \
         version or name"
    )]
    Duplicate { model: String, version: String, first: PathBuf, second: PathBuf },
    #[error("cannot load model `{model}`")]
    Load { model: String, source: LoadError },
    #[error("the package of model `{model}` is now called `{now}`: start a server for it")]
    Renamed { model: String, now: String },
    #[error(
        "`{model}` is a command: it runs once to its end and answers no requests; run it alone"
    )]
    Command { model: String },
    #[error("the warm-up request {path} of model `{model}` cannot be read")]
    WarmupFile { model: String, path: String, source: std::io::Error },
    #[error("the warm-up request {path} of model `{model}` is not an inference request: {detail}")]
    WarmupRequest { model: String, path: String, detail: String },
    #[error(
        "model `{model}` needs {need} bytes, and all models together may have {limit}: those that \
         have requests in work leave no room; raise {by}, or serve fewer models"
    )]
    NoRoom { model: String, need: u64, limit: u64, by: &'static str },
    #[error("there is no model `{0}`")]
    Unknown(String),
    #[error("the metrics could not be set up")]
    Metrics(#[source] prometheus::Error),
    #[error("a task of the server was cut off: {0}")]
    Task(String),
}

impl Reason for RepositoryError {
    fn code(&self) -> &'static str {
        match self {
            Self::Open { source, .. } => source.code(),
            Self::Duplicate { .. } => "model-twice",
            Self::Load { source, .. } => source.code(),
            Self::Renamed { .. } => "model-renamed",
            Self::Command { .. } => "is-a-command",
            Self::WarmupFile { .. } | Self::WarmupRequest { .. } => "warmup-request",
            Self::NoRoom { .. } => "no-room",
            Self::Unknown(_) => "not-found",
            Self::Metrics(_) | Self::Task(_) => "internal",
        }
    }
}
