//! `wasi:nn` graphs, inference and errors. A guest that computes holds no thread;
//! when its request ends, so does its compute.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use wasmtime::component::Resource;
use wick_nn::{GraphHandle, InferError, SourceBytes, Tensor};
use wick_package::{Datatype, DeviceKind, Digest, GraphSpec};

use crate::account::{Account, Charge};
use crate::bindings::wasi::nn::errors::{self, ErrorCode};
use crate::bindings::wasi::nn::graph::{self, ExecutionTarget, GraphEncoding};
use crate::bindings::wasi::nn::inference;
use crate::check::quoted;
use crate::host::{Held, HostContext, HostGraph, NnError, NnTensor};
use crate::state::{Guest, State};

/// Graphs that one instance may load from bytes. Each takes seconds of a processor.
const MAX_LOADED: usize = 4;

/// Largest graph that a guest may bring as bytes. Larger ones belong into the
/// package, where they are mapped, shared and cached.
const MAX_LOADED_BYTES: u64 = 128 << 20;

/// Graphs from bytes that stay loaded for the next instance. Without them a guest
/// that loads its graph in each request would wait for that each time.
const MAX_BROUGHT: usize = 2;

type Answer<T> = wasmtime::Result<Result<T, Resource<NnError>>>;

/// Graphs that instances of a model brought as bytes, newest first.
#[derive(Default)]
pub(crate) struct Brought(Mutex<Vec<BroughtGraph>>);

struct BroughtGraph {
    digest: Digest,
    /// What the guest asked for.
    device: DeviceKind,
    /// Bytes of it.
    size: u64,
    handle: GraphHandle,
}

impl graph::Host for State {
    async fn load(
        &mut self,
        builder: Vec<Vec<u8>>,
        encoding: GraphEncoding,
        target: ExecutionTarget,
    ) -> Answer<Resource<HostGraph>> {
        let loaded = async {
            known_encoding(encoding)?;
            let guest = Arc::clone(&self.guest);
            load_bytes(&guest, &self.account, &mut self.loaded, builder, target).await
        };
        let loaded = loaded.await;
        self.answer(loaded)
    }

    fn load_by_name(&mut self, name: String) -> Answer<Resource<HostGraph>> {
        let found = self.guest.graph(&name).cloned();
        let found = found.ok_or_else(|| no_graph(&self.guest, &name));
        self.answer(found.map(|handle| HostGraph { handle, charge: None }))
    }
}

impl graph::HostGraph for State {
    fn init_execution_context(
        &mut self,
        graph: Resource<HostGraph>,
    ) -> Answer<Resource<HostContext>> {
        let HostGraph { handle, charge } = self.table.get(&graph)?;
        let context = HostContext { handle: handle.clone(), _charge: charge.clone() };
        self.answer(Ok(context))
    }

    fn drop(&mut self, graph: Resource<HostGraph>) -> wasmtime::Result<()> {
        self.table.delete(graph)?;
        Ok(())
    }
}

impl inference::Host for State {}

impl inference::HostGraphExecutionContext for State {
    async fn compute(
        &mut self,
        context: Resource<HostContext>,
        inputs: Vec<(String, Resource<NnTensor>)>,
    ) -> Answer<Vec<(String, Resource<NnTensor>)>> {
        let handle = self.table.get(&context)?.handle.clone();
        let mut taken = Vec::with_capacity(inputs.len());
        for (name, tensor) in inputs {
            taken.push((name, self.table.delete(tensor)?));
        }
        let outputs = match compute(&handle, taken, &self.account).await {
            Ok(outputs) => outputs,
            Err(error) => return Ok(Err(self.table.push(error)?)),
        };
        let mut resources = Vec::with_capacity(outputs.len());
        for (name, tensor) in outputs {
            resources.push((name, self.table.push(tensor)?));
        }
        Ok(Ok(resources))
    }

    fn drop(&mut self, context: Resource<HostContext>) -> wasmtime::Result<()> {
        self.table.delete(context)?;
        Ok(())
    }
}

impl errors::Host for State {}

impl errors::HostError for State {
    fn code(&mut self, error: Resource<NnError>) -> wasmtime::Result<ErrorCode> {
        Ok(self.table.get(&error)?.code)
    }

    fn data(&mut self, error: Resource<NnError>) -> wasmtime::Result<String> {
        Ok(self.table.get(&error)?.text.clone())
    }

    fn drop(&mut self, error: Resource<NnError>) -> wasmtime::Result<()> {
        self.table.delete(error)?;
        Ok(())
    }
}

impl State {
    fn answer<T: Send + 'static>(&mut self, result: Result<T, NnError>) -> Answer<Resource<T>> {
        Ok(match result {
            Ok(value) => Ok(self.table.push(value)?),
            Err(error) => Err(self.table.push(error)?),
        })
    }
}

async fn compute(
    handle: &GraphHandle,
    inputs: Vec<(String, NnTensor)>,
    account: &Arc<Account>,
) -> Result<Vec<(String, NnTensor)>, NnError> {
    let mut tensors = Vec::with_capacity(inputs.len());
    // The charges of the inputs live until the compute is over.
    let mut charges: Vec<Arc<Charge>> = Vec::new();
    for (name, tensor) in inputs {
        let held = tensor.held().map_err(|reason| format!("input `{name}`: {reason}"))?;
        let tensor = as_graph_wants(handle, &name, &held.tensor);
        charges.extend(held.charge.clone());
        tensors.push((name, tensor));
    }
    let outputs = handle.infer(tensors).await.map_err(|error| nn_fault(&error))?;
    drop(charges);
    let mut held = Vec::with_capacity(outputs.len());
    for (name, tensor) in outputs {
        held.push((name, NnTensor::new(Held::made(tensor, account)?)?));
    }
    Ok(held)
}

/// `wasi:nn` has no BOOL, so guests pass U8 where a graph takes that.
fn as_graph_wants(handle: &GraphHandle, name: &str, tensor: &Tensor) -> Tensor {
    let wants_bool = || {
        let spec = handle.inputs().iter().find(|spec| spec.name == name);
        spec.is_some_and(|spec| spec.datatype == Datatype::Bool)
    };
    if tensor.datatype() == Datatype::Uint8
        && wants_bool()
        && let Ok(boolean) = Tensor::new(Datatype::Bool, tensor.shape(), tensor.data().clone())
    {
        return boolean;
    }
    tensor.clone()
}

/// A failed inference as `wasi:nn` says it.
pub(crate) fn nn_fault(error: &InferError) -> NnError {
    let code = match error {
        InferError::BadInput(_) => ErrorCode::InvalidArgument,
        InferError::Cancelled => ErrorCode::Timeout,
        InferError::Unloaded(_) => ErrorCode::NotFound,
        _ => ErrorCode::RuntimeError,
    };
    NnError::new(code, error.to_string())
}

/// What to say of a graph that the package does not have.
pub(crate) fn no_graph(guest: &Guest, name: &str) -> NnError {
    let names: Vec<_> = guest.graphs.iter().map(|graph| format!("`{}`", graph.name())).collect();
    let have = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let model = &guest.model;
    let name = quoted(name);
    NnError::new(
        ErrorCode::NotFound,
        format!("there is no graph `{name}`; package `{model}` has {have}"),
    )
}

fn known_encoding(encoding: GraphEncoding) -> Result<(), NnError> {
    match encoding {
        GraphEncoding::Onnx | GraphEncoding::Autodetect => Ok(()),
        _ => Err(NnError::new(
            ErrorCode::InvalidEncoding,
            "this host reads graphs in the encoding `onnx` (or `autodetect`)",
        )),
    }
}

/// Load a graph that the guest brings.
///
/// # Errors
/// It is too large, one too many, no graph, or wants a device that the package does
/// not permit.
pub(crate) async fn load_bytes(
    guest: &Guest,
    account: &Arc<Account>,
    loaded: &mut usize,
    builder: Vec<Vec<u8>>,
    target: ExecutionTarget,
) -> Result<HostGraph, NnError> {
    let device = match target {
        ExecutionTarget::Cpu => DeviceKind::Cpu,
        ExecutionTarget::Gpu => DeviceKind::Gpu,
        ExecutionTarget::Tpu => DeviceKind::Npu,
    };
    if !guest.devices.contains(&device) {
        let text = format!("package `{}` does not permit its graphs the {device}", guest.model);
        return Err(NnError::new(ErrorCode::Security, text));
    }
    if *loaded >= MAX_LOADED {
        let text = format!("an instance may load {MAX_LOADED} graphs from bytes, not more");
        return Err(NnError::new(ErrorCode::TooLarge, text));
    }
    let size = builder.iter().map(|part| part.len() as u64).sum();
    if size > MAX_LOADED_BYTES {
        let text = format!(
            "a graph of {size} bytes is over the limit of {MAX_LOADED_BYTES}; \
             put it into the package and load it by name"
        );
        return Err(NnError::new(ErrorCode::TooLarge, text));
    }
    let charge = account.charge(size)?;
    *loaded += 1;
    let mut parts = builder.into_iter();
    let bytes = match (parts.next(), parts.len()) {
        (Some(only), 0) => Bytes::from(only),
        (first, _) => first.into_iter().chain(parts).flatten().collect(),
    };
    let digest = Digest::of(&bytes);
    if let Some(handle) = guest.brought.find(&digest, device) {
        return Ok(HostGraph { handle, charge: Some(charge) });
    }
    let spec = spec(device)?;
    let resolve = move |_: &_| Ok(SourceBytes::Memory(bytes.clone()));
    let handle = guest
        .nn
        .load(&spec, &resolve)
        .await
        .map_err(|error| NnError::new(ErrorCode::RuntimeError, error.to_string()))?;
    guest.brought.keep(BroughtGraph { digest, device, size, handle: handle.clone() });
    Ok(HostGraph { handle, charge: Some(charge) })
}

// === impl Brought ===

impl Brought {
    fn find(&self, digest: &Digest, device: DeviceKind) -> Option<GraphHandle> {
        let graphs = self.0.lock();
        let found = graphs.iter().find(|one| one.digest == *digest && one.device == device);
        found.map(|one| one.handle.clone())
    }

    /// Each that is kept, with the bytes of it.
    pub(crate) fn kept(&self) -> Vec<(GraphHandle, u64)> {
        self.0.lock().iter().map(|one| (one.handle.clone(), one.size)).collect()
    }

    /// Forget all of them.
    pub(crate) fn clear(&self) {
        let dropped = std::mem::take(&mut *self.0.lock());
        drop(dropped);
    }

    fn keep(&self, graph: BroughtGraph) {
        let mut graphs = self.0.lock();
        graphs.insert(0, graph);
        // Dropping a graph may take long, so it is done without the lock.
        let kept = MAX_BROUGHT.min(graphs.len());
        let dropped = graphs.split_off(kept);
        drop(graphs);
        drop(dropped);
    }
}

/// What a package would have written for a graph that comes as bytes.
fn spec(device: DeviceKind) -> Result<GraphSpec, NnError> {
    let unknown = |text: String| NnError::new(ErrorCode::Unknown, text);
    Ok(GraphSpec {
        name: "bytes".parse().map_err(|error| unknown(format!("{error}")))?,
        path: "bytes.onnx".parse().map_err(|error| unknown(format!("{error}")))?,
        devices: vec![device],
        min_device_share: 0.0,
        batch: None,
        threads: None,
        backend: None,
        variants: Vec::new(),
    })
}
