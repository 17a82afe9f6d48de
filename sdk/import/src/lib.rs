//! Packages from models that are elsewhere: an ONNX file or folder, a ModelPack or KitOps
//! artifact, an MLflow registry, an object store, a web server, a snapshot of Hugging Face's.
//!
//! What is not ONNX is recognised by its content and refused with the tool that converts it. This
//! crate knows no backend: what a model takes and gives is read from its file.

mod choose;
mod client;
mod download;
mod error;
mod format;
mod http;
mod import;
mod manifest;
mod mlflow;
mod mlmodel;
mod names;
mod objects;
mod onnx;
mod place;
mod progress;
mod remote;
mod source;
mod staging;
mod tree;

pub use choose::ChooseError;
pub use error::ImportError;
pub use format::{Format, HEAD, recognise};
pub use import::{Imported, Settings, Signature, import};
pub use mlflow::{MlflowCredentials, MlflowSettings};
pub use onnx::{Declared, InlineError, ModelError, TypeError, WalkError, external_files};
pub use progress::{Progress, Watch};
pub use source::{MlflowModel, Source, Which};
pub use staging::check_free;
