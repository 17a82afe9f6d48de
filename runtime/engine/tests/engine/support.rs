//! Packages made for a test, and requests to them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use wick_engine::{
    Engine, EngineSettings, Grants, InferError, InferRequest, InferResponse, LoadError, Model,
    Parameter,
};
use wick_nn::{Nn, NnSettings, Tensor};
use wick_package::{Datatype, Package};
use wick_testing::onnx;

/// Long enough for any honest request on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A package of one FP32 vector in and one out, for the guests `echo` and `hostile`.
pub const HANDLER: &str = r#"
[package]
name = "m"
version = "1.0.0"

[handler]
component = "handler.wasm"

[[graph]]
name = "g"
path = "g.onnx"

[[input]]
name = "x"
datatype = "FP32"
shape = [-1]

[[output]]
name = "y"
datatype = "FP32"
shape = [-1]

[limits]
memory = "64MiB"
"#;

/// A package with only a command or web guest.
pub const BARE: &str = r#"
[package]
name = "m"
version = "1.0.0"

[handler]
component = "handler.wasm"
"#;

/// A package folder that lives as long as the test.
pub struct Folder(TempDir);

impl Folder {
    /// `wick.toml` and files.
    pub fn new(manifest: &str, files: &[(&str, &[u8])]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("wick.toml", manifest.as_bytes());
        for (name, bytes) in files {
            folder.write(name, bytes);
        }
        folder
    }

    /// A handler package whose graph `g` adds 1.
    pub fn handler(component: &[u8]) -> Self {
        let graph = onnx::add_scalar(1.0, &[2]);
        Self::new(HANDLER, &[("handler.wasm", component), ("g.onnx", &graph)])
    }

    pub fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path().join(name), bytes).unwrap();
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn open(&self) -> Package {
        Package::open(self.path()).unwrap()
    }

    pub async fn load(&self, engine: &Engine) -> Result<Model, LoadError> {
        engine.load(self.open(), Grants::default()).await
    }
}

/// Only tract, nothing cached.
pub fn nn() -> Nn {
    let settings = NnSettings {
        backend_dirs: Vec::new(),
        onnxruntime: None,
        cache: None,
        ..NnSettings::detect()
    };
    Nn::new(settings).unwrap()
}

pub fn settings() -> EngineSettings {
    EngineSettings { max_instances: 16, ..EngineSettings::default() }
}

pub fn engine() -> Engine {
    Engine::new(settings(), nn()).unwrap()
}

/// Run the test `name` in a process of its own, below the shell command `before`.
/// True in that process; false in this one, when the test there has passed.
#[track_caller]
pub fn alone(name: &str, before: &str) -> bool {
    const ALONE: &str = "WICK_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let output = std::process::Command::new("sh")
        .args(["-c", &format!(r#"{before} exec "$0" "$@""#)])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(ALONE, name)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{output:?}");
    false
}

/// A compiled guest.
pub fn guest(name: &str) -> Vec<u8> {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"), PathBuf::from);
    let folder = std::env::var_os("WICK_GUESTS")
        .map_or_else(|| target.join("wasm32-wasip2/guest"), PathBuf::from);
    let path = folder.join(name).with_extension("wasm");
    std::fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; run `cargo xtask setup`", path.display()))
}

pub fn vector(values: &[f32]) -> Tensor {
    Tensor::from_vec(&[values.len() as u64], values.to_vec()).unwrap()
}

/// A request for `hostile`.
pub fn request(mode: &str) -> InferRequest {
    InferRequest {
        parameters: vec![("mode".into(), Parameter::Text(mode.into()))],
        inputs: vec![("x".into(), vector(&[1.0, 2.0]))],
        ..InferRequest::default()
    }
}

pub async fn ask(model: &Model, request: InferRequest) -> Result<InferResponse, InferError> {
    model.infer(request, Instant::now() + PATIENCE).await
}

/// A good request to `hostile` is answered.
#[track_caller]
pub fn good(answer: Result<InferResponse, InferError>) {
    let answer = answer.unwrap();
    let [(name, y)] = answer.outputs.as_slice() else { panic!("{answer:?}") };
    assert_eq!((name.as_str(), y.as_slice()), ("y", Some(&[1.0_f32, 2.0][..])));
    assert_eq!(y.datatype(), Datatype::Fp32);
}
