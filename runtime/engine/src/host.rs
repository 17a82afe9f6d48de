//! What the host gives to guests: `wick:model/types` and `wasi:nn`, both over the
//! tensors and graphs of `wick-nn`. Tensors are handles: their bytes stay here.

mod graph;
mod tensor;
mod types;

use std::sync::Arc;

use wasmtime::component::{HasSelf, Linker};
use wick_nn::{GraphHandle, Tensor};

use crate::account::{Account, AccountError, Charge};
use crate::bindings::wasi::nn::errors::ErrorCode;
use crate::bindings::{wasi, wick};
use crate::state::State;

pub(crate) use graph::{Brought, load_bytes, nn_fault, no_graph};
pub use tensor::NnTensor;
pub(crate) use tensor::tensor_type;

/// Interfaces of this host, as a component's imports name them, without versions
/// where any version of the 0.2 line will do. For messages; wasmtime does the linking.
pub(crate) const INTERFACES: [&str; 12] = [
    "wick:model/types@0.1.0",
    "wasi:nn/tensor@0.2.0-rc-2024-10-28",
    "wasi:nn/graph@0.2.0-rc-2024-10-28",
    "wasi:nn/inference@0.2.0-rc-2024-10-28",
    "wasi:nn/errors@0.2.0-rc-2024-10-28",
    "wasi:cli/",
    "wasi:clocks/",
    "wasi:filesystem/",
    "wasi:http/",
    "wasi:io/",
    "wasi:random/",
    "wasi:sockets/",
];

/// A tensor of `wick:model`.
pub struct HostTensor(pub(crate) Held);

/// A tensor and what it costs its instance: nothing, if it came with the request.
#[derive(Clone)]
pub(crate) struct Held {
    pub tensor: Tensor,
    pub charge: Option<Arc<Charge>>,
}

/// A graph that a guest holds.
pub struct HostGraph {
    pub(crate) handle: GraphHandle,
    /// What its bytes cost, if the guest brought them.
    pub(crate) charge: Option<Arc<Charge>>,
}

/// A graph that a guest computes on.
pub struct HostContext {
    pub(crate) handle: GraphHandle,
    /// The graph's, which lives as long as a context of it.
    pub(crate) _charge: Option<Arc<Charge>>,
}

/// An error of `wasi:nn`, which is a resource there.
#[derive(Debug)]
pub struct NnError {
    pub(crate) code: ErrorCode,
    pub(crate) text: String,
}

// === impl Held ===

impl Held {
    /// A tensor that came from outside the instance.
    pub(crate) fn given(tensor: Tensor) -> Self {
        Self { tensor, charge: None }
    }

    /// A tensor that the instance made, or had made by a graph.
    pub(crate) fn made(tensor: Tensor, account: &Arc<Account>) -> Result<Self, AccountError> {
        let charge = account.charge(tensor.data().len() as u64)?;
        Ok(Self { tensor, charge: Some(charge) })
    }
}

// === impl NnError ===

impl NnError {
    pub(crate) fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

impl From<AccountError> for NnError {
    fn from(error: AccountError) -> Self {
        Self::new(ErrorCode::TooLarge, error.to_string())
    }
}

/// Give a component all that this host has.
///
/// # Errors
/// Two interfaces would have the same name, which is a mistake of this crate.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)?;
    wick::model::types::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    wasi::nn::tensor::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    wasi::nn::graph::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    wasi::nn::inference::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    wasi::nn::errors::add_to_linker::<_, HasSelf<State>>(linker, |state| state)
}
