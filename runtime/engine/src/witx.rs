//! `wasi_ephemeral_nn`: the older ABI of wasi-nn, for core modules. Every pointer
//! and length that a guest passes is checked against its memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use wasmtime::{Caller, Extern, Linker, Memory};
use wasmtime_wasi::p1::WasiP1Ctx;
use wick_nn::{GraphHandle, Tensor};
use wick_package::Datatype;

use crate::account::{Account, Charge};
use crate::bindings::wasi::nn::errors::ErrorCode;
use crate::bindings::wasi::nn::graph::ExecutionTarget;
use crate::host::{HostGraph, NnError, load_bytes, nn_fault, no_graph};
use crate::output::Output;
use crate::state::{Guest, Limited, Limits};

/// Name of the module that guests import.
const MODULE: &str = "wasi_ephemeral_nn";

/// Graphs and contexts, together, that an instance may make. The ABI has no way to
/// drop one.
const MAX_HANDLES: usize = 1000;

/// Parts of a graph's bytes; encodings with more than two are not known.
const MAX_PARTS: u32 = 16;

/// Longest graph name that is read.
const MAX_NAME: u32 = 1024;

/// Data of a core module's store.
pub(crate) struct CoreState {
    pub wasi: WasiP1Ctx,
    pub limits: Limits,
    guest: Arc<Guest>,
    account: Arc<Account>,
    graphs: Vec<HostGraph>,
    contexts: Vec<Context>,
    loaded: usize,
}

/// A graph with the tensors that were set and computed.
struct Context {
    handle: GraphHandle,
    inputs: BTreeMap<usize, Held>,
    outputs: Vec<Held>,
}

/// A tensor and its cost.
#[derive(Clone)]
struct Held {
    tensor: Tensor,
    _charge: Arc<Charge>,
}

/// Numbers of the ABI. A fault of memory is not among them: it traps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Errno {
    InvalidArgument = 1,
    InvalidEncoding = 2,
    RuntimeError = 5,
    UnsupportedOperation = 6,
    TooLarge = 7,
    NotFound = 8,
}

/// What went wrong, for the guest and for the log.
#[derive(Debug)]
struct Fault {
    errno: Errno,
    text: String,
}

type Outcome<T> = wasmtime::Result<Result<T, Fault>>;

// === impl CoreState ===

impl CoreState {
    pub(crate) fn new(
        guest: &Arc<Guest>,
        output: &Arc<Output>,
        args: &[String],
    ) -> wasmtime::Result<Self> {
        Ok(Self {
            wasi: guest.wasi(output, args)?.build_p1(),
            limits: Limits::new(guest.memory),
            guest: Arc::clone(guest),
            account: Account::new(guest.memory),
            graphs: Vec::new(),
            contexts: Vec::new(),
            loaded: 0,
        })
    }

    fn has_room(&self) -> Result<(), Fault> {
        if self.graphs.len() + self.contexts.len() < MAX_HANDLES {
            return Ok(());
        }
        let text = format!("an instance may hold {MAX_HANDLES} graphs and contexts, not more");
        Err(Fault::new(Errno::TooLarge, text))
    }

    fn context(&mut self, index: u32) -> Result<&mut Context, Fault> {
        let unknown = || Fault::new(Errno::InvalidArgument, format!("there is no context {index}"));
        self.contexts.get_mut(index as usize).ok_or_else(unknown)
    }
}

impl Limited for CoreState {
    fn limits(&mut self) -> &mut Limits {
        &mut self.limits
    }
}

/// Give a core module wasi preview 1 and `wasi_ephemeral_nn`.
///
/// # Errors
/// A name is defined twice, which is a mistake of this crate.
pub(crate) fn link(linker: &mut Linker<CoreState>) -> wasmtime::Result<()> {
    wasmtime_wasi::p1::add_to_linker_async(linker, |state: &mut CoreState| &mut state.wasi)?;
    linker.func_wrap_async(
        MODULE,
        "load",
        |mut caller: Caller<'_, CoreState>,
         (builder, parts, encoding, target, out): (u32, u32, u32, u32, u32)| {
            Box::new(async move {
                let outcome = load(&mut caller, builder, parts, encoding, target).await?;
                answer(&mut caller, outcome, out)
            })
        },
    )?;
    linker.func_wrap(
        MODULE,
        "load_by_name",
        |mut caller: Caller<'_, CoreState>, name: u32, len: u32, out: u32| {
            let outcome = load_by_name(&mut caller, name, len)?;
            answer(&mut caller, outcome, out)
        },
    )?;
    linker.func_wrap(
        MODULE,
        "init_execution_context",
        |mut caller: Caller<'_, CoreState>, graph: u32, out: u32| {
            let outcome = init_execution_context(caller.data_mut(), graph);
            answer(&mut caller, outcome, out)
        },
    )?;
    linker.func_wrap(
        MODULE,
        "set_input",
        |mut caller: Caller<'_, CoreState>, context: u32, index: u32, tensor: u32| {
            let outcome = set_input(&mut caller, context, index, tensor)?;
            Ok(errno(&caller, outcome.map(|()| 0)))
        },
    )?;
    linker.func_wrap_async(
        MODULE,
        "compute",
        |mut caller: Caller<'_, CoreState>, (context,): (u32,)| {
            Box::new(async move {
                let outcome = compute(caller.data_mut(), context).await;
                Ok::<_, wasmtime::Error>(errno(&caller, outcome.map(|()| 0)))
            })
        },
    )?;
    linker.func_wrap(
        MODULE,
        "get_output",
        |mut caller: Caller<'_, CoreState>,
         context: u32,
         index: u32,
         buffer: u32,
         len: u32,
         out: u32| {
            let outcome = get_output(&mut caller, context, index, buffer, len)?;
            answer(&mut caller, outcome, out)
        },
    )?;
    Ok(())
}

async fn load(
    caller: &mut Caller<'_, CoreState>,
    builder: u32,
    parts: u32,
    encoding: u32,
    target: u32,
) -> Outcome<u32> {
    const ONNX: u32 = 1;
    const AUTODETECT: u32 = 5;
    if let Err(fault) = caller.data().has_room() {
        return Ok(Err(fault));
    }
    if encoding != ONNX && encoding != AUTODETECT {
        let text = "this host reads graphs in the encoding `onnx` (or `autodetect`)".to_owned();
        return Ok(Err(Fault::new(Errno::InvalidEncoding, text)));
    }
    let target = match target {
        0 => ExecutionTarget::Cpu,
        1 => ExecutionTarget::Gpu,
        2 => ExecutionTarget::Tpu,
        _ => {
            let text = format!("there is no execution target {target}");
            return Ok(Err(Fault::new(Errno::InvalidArgument, text)));
        }
    };
    if parts == 0 || parts > MAX_PARTS {
        let text = format!("a graph has 1 to {MAX_PARTS} parts, and {parts} were given");
        return Ok(Err(Fault::new(Errno::InvalidArgument, text)));
    }
    let memory = memory(caller)?;
    let (data, state) = memory.data_and_store_mut(&mut *caller);
    let mut bytes = Vec::with_capacity(parts as usize);
    let mut total = 0_u64;
    for part in 0..parts {
        let [at, len] = words(data, builder.wrapping_add(part * 8))?;
        let part = slice(data, at, len)?;
        // Parts may overlap, so that their sum is larger than the guest's memory.
        total += part.len() as u64;
        if total > state.guest.memory {
            let text = format!("a graph of more than {} bytes", state.guest.memory);
            return Ok(Err(Fault::new(Errno::TooLarge, text)));
        }
        bytes.push(part.to_vec());
    }
    let (guest, account) = (Arc::clone(&state.guest), Arc::clone(&state.account));
    let loaded = load_bytes(&guest, &account, &mut state.loaded, bytes, target).await;
    Ok(loaded.map_err(Fault::from).map(|graph| push(&mut state.graphs, graph)))
}

fn load_by_name(caller: &mut Caller<'_, CoreState>, name: u32, len: u32) -> Outcome<u32> {
    if let Err(fault) = caller.data().has_room() {
        return Ok(Err(fault));
    }
    let memory = memory(caller)?;
    let (data, state) = memory.data_and_store_mut(&mut *caller);
    let name = slice(data, name, len.min(MAX_NAME))?;
    let name = String::from_utf8_lossy(name);
    let handle = state.guest.graph(&name).cloned();
    let Some(handle) = handle else {
        return Ok(Err(no_graph(&state.guest, &name).into()));
    };
    Ok(Ok(push(&mut state.graphs, HostGraph { handle, charge: None })))
}

fn init_execution_context(state: &mut CoreState, graph: u32) -> Result<u32, Fault> {
    state.has_room()?;
    let graph = state
        .graphs
        .get(graph as usize)
        .ok_or_else(|| Fault::new(Errno::InvalidArgument, format!("there is no graph {graph}")))?;
    let context =
        Context { handle: graph.handle.clone(), inputs: BTreeMap::new(), outputs: Vec::new() };
    Ok(push(&mut state.contexts, context))
}

/// The tensor is a record of dimensions (pointer, length), type, data (pointer,
/// length), five words in all.
fn set_input(
    caller: &mut Caller<'_, CoreState>,
    context: u32,
    index: u32,
    tensor: u32,
) -> Outcome<()> {
    let memory = memory(caller)?;
    let (data, state) = memory.data_and_store_mut(&mut *caller);
    let [dims, rank, ty, bytes, len] = words(data, tensor)?;
    if rank as usize > wick_package::MAX_RANK {
        let text = format!("a tensor has at most {} dimensions", wick_package::MAX_RANK);
        return Ok(Err(Fault::new(Errno::InvalidArgument, text)));
    }
    let shape = slice(data, dims, rank * 4)?;
    let shape: Vec<u64> =
        shape.as_chunks::<4>().0.iter().map(|dim| u64::from(u32::from_le_bytes(*dim))).collect();
    let bytes = slice(data, bytes, len)?;
    let mut set = || {
        let charge = state.account.charge(bytes.len() as u64)?;
        // The type is one byte; the three after it are padding.
        let datatype = datatype(ty.to_le_bytes()[0])?;
        let tensor = Tensor::new(datatype, &shape, Bytes::copy_from_slice(bytes))
            .map_err(|error| Fault::new(Errno::InvalidArgument, error.to_string()))?;
        let context = state.context(context)?;
        let inputs = context.handle.inputs().len();
        if index as usize >= inputs {
            let text = format!("there is no input {index}; the graph has {inputs}");
            return Err(Fault::new(Errno::InvalidArgument, text));
        }
        context.inputs.insert(index as usize, Held { tensor, _charge: charge });
        Ok(())
    };
    Ok(set())
}

async fn compute(state: &mut CoreState, context: u32) -> Result<(), Fault> {
    let account = Arc::clone(&state.account);
    let context = state.context(context)?;
    let specs = context.handle.inputs();
    let inputs = context.inputs.iter();
    let named = inputs.map(|(&index, held)| (specs[index].name.clone(), held.tensor.clone()));
    let outputs = context.handle.infer(named.collect()).await;
    let outputs = outputs.map_err(|error| Fault::from(nn_fault(&error)))?;
    context.outputs.clear();
    for (_, tensor) in outputs {
        let charge = account.charge(tensor.data().len() as u64)?;
        context.outputs.push(Held { tensor, _charge: charge });
    }
    Ok(())
}

fn get_output(
    caller: &mut Caller<'_, CoreState>,
    context: u32,
    index: u32,
    buffer: u32,
    len: u32,
) -> Outcome<u32> {
    let memory = memory(caller)?;
    let (data, state) = memory.data_and_store_mut(&mut *caller);
    let found = state.context(context).and_then(|context| {
        let count = context.outputs.len();
        context.outputs.get(index as usize).cloned().ok_or_else(|| {
            let text = format!("there is no output {index}; {count} were computed");
            Fault::new(Errno::InvalidArgument, text)
        })
    });
    let output = match found {
        Ok(output) => output,
        Err(fault) => return Ok(Err(fault)),
    };
    let bytes = output.tensor.data();
    let Some(size) = u32::try_from(bytes.len()).ok().filter(|&size| size <= len) else {
        let text = format!("the output has {} bytes, and the buffer {len}", bytes.len());
        return Ok(Err(Fault::new(Errno::TooLarge, text)));
    };
    slice_mut(data, buffer, size)?.copy_from_slice(bytes);
    Ok(Ok(size))
}

/// Write a value for the guest, and say how it went.
fn answer(
    caller: &mut Caller<'_, CoreState>,
    outcome: Result<u32, Fault>,
    out: u32,
) -> wasmtime::Result<u32> {
    if let Ok(value) = &outcome {
        let memory = memory(caller)?;
        slice_mut(memory.data_mut(&mut *caller), out, 4)?.copy_from_slice(&value.to_le_bytes());
    }
    Ok(errno(caller, outcome.map(|_| 0)))
}

/// The ABI carries only a number, so the words go to the log.
fn errno(caller: &Caller<'_, CoreState>, outcome: Result<u32, Fault>) -> u32 {
    outcome.unwrap_or_else(|fault| {
        let model = &*caller.data().guest.model;
        tracing::warn!(target: "guest", model, errno = ?fault.errno, "{}", fault.text);
        fault.errno as u32
    })
}

fn push<T>(values: &mut Vec<T>, value: T) -> u32 {
    values.push(value);
    // `has_room` bounds the number far below that.
    u32::try_from(values.len() - 1).unwrap_or(u32::MAX)
}

fn memory(caller: &mut Caller<'_, CoreState>) -> wasmtime::Result<Memory> {
    caller
        .get_export("memory")
        .and_then(Extern::into_memory)
        .ok_or_else(|| wasmtime::format_err!("the module exports no memory"))
}

fn slice(data: &[u8], at: u32, len: u32) -> wasmtime::Result<&[u8]> {
    let range = at as usize..at as usize + len as usize;
    data.get(range).ok_or_else(|| outside(at, len))
}

fn slice_mut(data: &mut [u8], at: u32, len: u32) -> wasmtime::Result<&mut [u8]> {
    let range = at as usize..at as usize + len as usize;
    data.get_mut(range).ok_or_else(|| outside(at, len))
}

fn words<const N: usize>(data: &[u8], at: u32) -> wasmtime::Result<[u32; N]> {
    let len = u32::try_from(N * 4).unwrap_or(u32::MAX);
    let mut chunks = slice(data, at, len)?.as_chunks::<4>().0.iter();
    Ok(std::array::from_fn(|_| chunks.next().map_or(0, |word| u32::from_le_bytes(*word))))
}

fn outside(at: u32, len: u32) -> wasmtime::Error {
    wasmtime::format_err!("the guest passed {len} bytes at {at}, which is outside its memory")
}

fn datatype(ty: u8) -> Result<Datatype, Fault> {
    Ok(match ty {
        0 => Datatype::Fp16,
        1 => Datatype::Fp32,
        2 => Datatype::Fp64,
        3 => Datatype::Uint8,
        4 => Datatype::Int32,
        5 => Datatype::Int64,
        _ => {
            let text = format!("there is no tensor type {ty}");
            return Err(Fault::new(Errno::InvalidArgument, text));
        }
    })
}

// === impl Fault ===

impl Fault {
    fn new(errno: Errno, text: String) -> Self {
        Self { errno, text }
    }
}

impl From<NnError> for Fault {
    fn from(error: NnError) -> Self {
        let errno = match error.code {
            ErrorCode::InvalidArgument => Errno::InvalidArgument,
            ErrorCode::InvalidEncoding => Errno::InvalidEncoding,
            ErrorCode::UnsupportedOperation | ErrorCode::Security => Errno::UnsupportedOperation,
            ErrorCode::TooLarge => Errno::TooLarge,
            ErrorCode::NotFound => Errno::NotFound,
            ErrorCode::Timeout | ErrorCode::RuntimeError | ErrorCode::Unknown => {
                Errno::RuntimeError
            }
        };
        Self::new(errno, error.text)
    }
}

impl From<crate::account::AccountError> for Fault {
    fn from(error: crate::account::AccountError) -> Self {
        NnError::from(error).into()
    }
}
