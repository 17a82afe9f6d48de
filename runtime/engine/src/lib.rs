//! Models: a package's WebAssembly, run by wasmtime, on top of `wick-nn`.
//!
//! An [`Engine`] compiles and links; a [`Model`] is a loaded package that answers
//! requests. This crate knows http types for wasi-http guests, but no server,
//! no containerd and no Kubernetes.

mod account;
mod bindings;
mod cache;
mod check;
mod command;
mod config;
mod engine;
mod error;
mod failure;
mod handler;
mod host;
mod http;
mod model;
mod network;
mod output;
mod program;
mod request;
mod state;
mod ticker;
mod warm;
mod witx;

pub use command::CommandOutput;
pub use engine::{Engine, EngineSettings, Grants};
pub use error::{InferError, LoadError};
pub use http::{BoxError, HttpBody};
pub use model::{GraphStatus, Model, ModelKind};
pub use output::Streams;
pub use request::{InferRequest, InferResponse, Parameter};
