//! A host for tests: settings, specifications, and a runtime to block on.

use std::env;
use std::future::Future;
use std::path::PathBuf;
use std::sync::LazyLock;

use tokio::runtime::Runtime;
use wick_nn::{GraphHandle, LoadError, Nn, NnSettings, SourceBytes, Tensor};
use wick_package::{DeviceKind, GraphSpec};

/// Compute threads and threads of an inference in tests.
pub const CPUS: usize = 2;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Which {
    Tract,
    OnnxRuntime,
}

pub fn block_on<F: Future>(future: F) -> F::Output {
    RUNTIME.block_on(future)
}

pub fn spawn<F>(future: F) -> tokio::task::JoinHandle<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    RUNTIME.spawn(future)
}

/// A file that the set-up provides.
fn provided(variable: &str, default: &str) -> PathBuf {
    let cache = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(env::var_os("HOME").expect("HOME is set")).join(".cache"));
    let path =
        env::var_os(variable).map_or_else(|| cache.join("wick").join(default), PathBuf::from);
    assert!(path.exists(), "{} is missing: run `cargo xtask setup`", path.display());
    path
}

pub fn onnxruntime() -> PathBuf {
    provided("WICK_ORT_DYLIB", "backends/onnxruntime-1.32.0/libonnxruntime.so.1.32.0")
}

pub fn model_file(name: &str) -> PathBuf {
    let path = provided("WICK_MODELS", "models").join(name);
    assert!(path.exists(), "{} is missing: run `cargo xtask setup`", path.display());
    path
}

/// Settings without a cache, and with ONNX Runtime only where it is asked for.
pub fn settings(which: Which) -> NnSettings {
    NnSettings {
        backend_dirs: Vec::new(),
        onnxruntime: (which == Which::OnnxRuntime).then(onnxruntime),
        cache: None,
        cpus: CPUS,
    }
}

pub fn nn(which: Which) -> Nn {
    Nn::new(settings(which)).unwrap()
}

pub fn spec() -> GraphSpec {
    GraphSpec {
        name: "g".parse().unwrap(),
        path: "model.onnx".parse().unwrap(),
        devices: vec![DeviceKind::Cpu],
        min_device_share: 1.0,
        batch: None,
        threads: None,
        backend: None,
        variants: Vec::new(),
    }
}

pub fn load_with(nn: &Nn, spec: &GraphSpec, bytes: SourceBytes) -> Result<GraphHandle, LoadError> {
    block_on(nn.load(spec, &|_| Ok(bytes.clone())))
}

pub fn load(which: Which, model: Vec<u8>) -> Result<GraphHandle, LoadError> {
    load_with(&nn(which), &spec(), SourceBytes::Memory(model.into()))
}

pub fn load_file(which: Which, name: &str) -> GraphHandle {
    load_with(&nn(which), &spec(), source_file(model_file(name))).unwrap()
}

pub fn source_file(path: PathBuf) -> SourceBytes {
    let len = path.metadata().unwrap().len();
    SourceBytes::File { path, offset: 0, len, digest: None }
}

/// Run on one input called `x` and return the first output.
pub fn infer(graph: &GraphHandle, x: Tensor) -> Result<Tensor, wick_nn::InferError> {
    let outputs = block_on(graph.infer(vec![("x".to_owned(), x)]))?;
    Ok(outputs.into_iter().next().unwrap().1)
}

pub fn floats(shape: &[u64], values: &[f32]) -> Tensor {
    Tensor::from_vec(shape, values.to_vec()).unwrap()
}

/// Run each of these functions on every backend.
macro_rules! on_every_backend {
    ($($name:ident),* $(,)?) => {
        mod tract {
            $(#[test] fn $name() { super::$name($crate::common::Which::Tract); })*
        }
        mod onnxruntime {
            $(#[test] fn $name() { super::$name($crate::common::Which::OnnxRuntime); })*
        }
    };
}

pub(crate) use on_every_backend;
