//! The seam to the host: WebAssembly imports, or the same in plain Rust for tests.

#[cfg(not(target_family = "wasm"))]
mod native;
#[cfg(target_family = "wasm")]
mod wasm;

#[cfg(not(target_family = "wasm"))]
pub(crate) use native::{Graph, Tensor};
#[cfg(target_family = "wasm")]
pub(crate) use wasm::{Graph, Tensor};
#[cfg(target_family = "wasm")]
pub use wasm::{answer, bindings};
