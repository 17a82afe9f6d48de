//! Model files on a real backend, through wick-nn.

use std::io;
use std::path::Path;
use std::rc::Rc;

use bytes::Bytes;
use tokio::runtime;
use wick_nn::{GraphHandle, Nn, NnSettings, SourceBytes};
use wick_package::{DeviceKind, GraphSpec, RelPath};

use super::Run;
use crate::{Datatype, Error, Result, Tensor, Tensors};

pub(super) fn load(name: &str, path: &Path) -> Result<Run> {
    let len = std::fs::metadata(path)
        .map_err(|error| Error::internal(format_args!("cannot read {}: {error}", path.display())))?
        .len();
    let spec = GraphSpec {
        name: name.parse()?,
        // Not looked up: `resolve` answers for the only file.
        path: "model.onnx".parse()?,
        devices: vec![DeviceKind::Cpu],
        min_device_share: 1.0,
        batch: None,
        threads: None,
        backend: None,
        variants: Vec::new(),
    };
    let resolve = |_: &RelPath| -> io::Result<SourceBytes> {
        Ok(SourceBytes::File { path: path.to_owned(), offset: 0, len, digest: None })
    };
    // The runtime lives as long as the graph: the graph's tasks run on it.
    let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let graph = runtime.block_on(async {
        let nn = Nn::new(NnSettings::detect())?;
        nn.load(&spec, &resolve).await
    })?;
    Ok(Rc::new(move |inputs: &Tensors| run(&runtime, &graph, inputs)))
}

fn run(runtime: &runtime::Runtime, graph: &GraphHandle, inputs: &Tensors) -> Result<Tensors> {
    let mut own = Vec::with_capacity(inputs.len());
    for (name, tensor) in inputs.iter() {
        let datatype: wick_package::Datatype = tensor.datatype().as_str().parse()?;
        let data = Bytes::from(tensor.read(0, tensor.byte_size()));
        own.push((name.to_owned(), wick_nn::Tensor::new(datatype, &tensor.shape(), data)?));
    }
    let outputs = runtime.block_on(graph.infer(own))?;
    let mut tensors = Tensors::new();
    for (name, tensor) in outputs {
        let datatype = own_datatype(tensor.datatype());
        tensors.push(name, Tensor::from_bytes(datatype, tensor.shape(), tensor.data())?);
    }
    Ok(tensors)
}

fn own_datatype(datatype: wick_package::Datatype) -> Datatype {
    use wick_package::Datatype as Theirs;
    match datatype {
        Theirs::Bool => Datatype::Bool,
        Theirs::Uint8 => Datatype::Uint8,
        Theirs::Uint16 => Datatype::Uint16,
        Theirs::Uint32 => Datatype::Uint32,
        Theirs::Uint64 => Datatype::Uint64,
        Theirs::Int8 => Datatype::Int8,
        Theirs::Int16 => Datatype::Int16,
        Theirs::Int32 => Datatype::Int32,
        Theirs::Int64 => Datatype::Int64,
        Theirs::Fp16 => Datatype::Fp16,
        Theirs::Bf16 => Datatype::Bf16,
        Theirs::Fp32 => Datatype::Fp32,
        Theirs::Fp64 => Datatype::Fp64,
        Theirs::Bytes => Datatype::Bytes,
    }
}
