//! Inference: `Backend -> Graph -> Session`, devices, and batching.
//!
//! A [`Backend`] is a library that can run models. It loads a file into a
//! [`Graph`], which is immutable and shared; a [`Session`] is the scratch space of
//! one inference at a time. Callers see only [`Nn`] and [`GraphHandle`], which pool
//! sessions, run them on compute threads and join batches.
//!
//! This crate knows nothing of HTTP or of WebAssembly guests.

mod arrange;
mod backend;
mod batch;
mod cache;
mod choose;
mod compute;
mod cpus;
mod doorbell;
mod error;
mod handle;
mod inventory;
mod nn;
mod onnxruntime;
mod quick;
mod runner;
mod settings;
mod skeleton;
mod source;
mod stats;
mod tensor;
mod tract;

pub use backend::{
    Backend, Cancel, Device, DeviceUse, Found, Graph, GraphOptions, GraphSource, Refusal, Session,
    SourceBytes,
};
pub use error::{InferError, LoadError};
pub use handle::GraphHandle;
pub use inventory::{Hardware, Inventory};
pub use nn::{BackendInfo, Explanation, Nn};
pub use onnxruntime::preload::{Preloaded, Wanted, preload};
pub use onnxruntime::providers;
pub use onnxruntime::vulkan::DriverFile;
pub use settings::NnSettings;
pub use stats::GraphStats;
pub use tensor::{Element, MAX_RANK, Shape, Tensor, TensorError, element_count};
