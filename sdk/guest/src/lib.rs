//! What a wick handler is written against.
//!
//! A handler is one function with an attribute. It takes a request, runs the graphs
//! of its package and returns a response:
//!
//! ```
//! use wick_guest::{Request, Response, Result, Tensor, graph, handler};
//!
//! #[handler]
//! fn infer(request: Request) -> Result<Response> {
//!     let pixels: Vec<u8> = request.input("pixels")?.to_vec()?;
//!     let values: Vec<f32> = pixels.iter().map(|&pixel| f32::from(pixel) / 255.0).collect();
//!     let out = graph("digits")?.run([("x", Tensor::new(&[1, 784], values)?)])?;
//!     let scores: Vec<f32> = out.get("scores")?.to_vec()?;
//!     let best = (0..10_u32).max_by(|&a, &b| scores[a as usize].total_cmp(&scores[b as usize]));
//!     Ok(Response::new().output("digit", Tensor::new(&[1], [best.unwrap_or(0)])?))
//! }
//! # use wick_guest::{Error, testing::Graphs, Tensors};
//! # let graphs = Graphs::new().fake("digits", |inputs| {
//! #     inputs.get("x")?;
//! #     let scores = [0.0, 0.0, 0.0, 0.9, 0.0, 0.0, 0.0, 0.1, 0.0, 0.0_f32];
//! #     Ok(Tensors::new().with("scores", Tensor::new(&[1, 10], scores)?))
//! # });
//! # let _installed = graphs.install();
//! # let request = Request::new().with_input("pixels", Tensor::new(&[784], [7_u8; 784])?);
//! # assert_eq!(infer(request)?.get("digit")?.to_vec::<u32>()?, [3]);
//! # Ok::<(), Error>(())
//! ```
//!
//! Built for `wasm32-wasip2` as a `cdylib`, that is a component of the world
//! `wick:model/model`. Built natively, the same types are plain Rust, so `cargo test`
//! runs a handler without WebAssembly; [`testing`] gives it graphs, made up or real.
//!
//! A [`Tensor`] is a handle to bytes that the host keeps. They enter the handler's
//! memory only when it reads them, so a tensor that is passed on costs nothing.
//!
//! Each request gets a fresh instance: nothing is kept between calls, and start-up work
//! is paid by every request. Tables belong into constants, not into code that builds
//! them. A panic's message goes to the model's log, and its request is answered with
//! status 500.
//!
//! This crate knows nothing of HTTP, of packages and of how a graph is run.

mod argument;
mod datatype;
mod error;
mod graph;
mod host;
mod parameter;
mod request;
mod response;
mod tensor;
mod tensors;

#[cfg(not(target_family = "wasm"))]
pub mod testing;

pub use argument::Argument;
pub use datatype::{Datatype, Element};
pub use error::{Error, ErrorKind, Result, ResultExt};
pub use graph::{Graph, graph};
pub use half::{bf16, f16};
pub use parameter::Parameter;
pub use request::Request;
pub use response::Response;
pub use tensor::{Tensor, View};
pub use tensors::Tensors;
pub use wick_guest_macros::handler;

/// What `#[handler]` expands to. Not for people.
#[doc(hidden)]
#[cfg(target_family = "wasm")]
pub mod __private {
    pub use crate::host::{answer, bindings};
}
