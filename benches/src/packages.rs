//! Packages that the benchmarks generate: models of a known shape and cost.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use wick_testing::onnx;

use crate::direct::{Floor, Input};
use crate::setup::Setup;

/// What a model of 5 to 20 ms takes at least, and a little more: a machine is quicker at times.
const LEAST_MS: f64 = 5.5;

/// Most layers that a network is lengthened by until it takes that.
const MOST_LAYERS: usize = 64;

/// Most files of one request, for the same reason.
const MOST_FILES: i64 = 32;

/// Side of the picture that the convolution network takes.
const PICTURE: u64 = 224;

/// Width of the dense network: 12 layers of 1024 x 1024 FP32 are 48 MB.
const DENSE_WIDTH: u64 = 1024;
const DENSE_LAYERS: usize = 12;

/// A model of 5 to 20 ms on one core, with a picture of 600 KB as input: as many layers as
/// that takes on this machine.
pub fn conv_model(setup: &Setup, floor: &Floor) -> anyhow::Result<PathBuf> {
    let path = setup.folder("models")?.join("conv.onnx");
    for more in 0..=MOST_LAYERS {
        fs::write(&path, onnx::conv_net(more))?;
        let took = floor.load(&path, 1, &conv_input())?.typical_ms()?;
        if took >= LEAST_MS {
            eprintln!("conv: {more} layers more than the least, {took:.1} ms");
            return Ok(path);
        }
    }
    bail!("{MOST_LAYERS} layers more take less than {LEAST_MS} ms")
}

pub fn conv_input() -> Input {
    picture()
}

/// Tokens as Magika takes them for each of some files: bytes, 256 for none.
pub fn magika_input(files: i64) -> Input {
    let tokens = (0..files as i32 * 2048).map(|i| (i * 7) % 256);
    Input::I32(vec![files, 2048], tokens.collect())
}

/// How many files make Magika a model of 5 to 20 ms on one core.
pub fn magika_files(model: &Path, floor: &Floor) -> anyhow::Result<i64> {
    for files in 1..=MOST_FILES {
        let took = floor.load(model, 1, &magika_input(files))?.typical_ms()?;
        if took >= LEAST_MS {
            eprintln!("magika: {files} files, {took:.1} ms");
            return Ok(files);
        }
    }
    bail!("{MOST_FILES} files take less than {LEAST_MS} ms")
}

pub fn resnet_input() -> Input {
    picture()
}

fn picture() -> Input {
    let side = PICTURE as i64;
    let values = (0..3 * side * side).map(|i| (i % 255) as f32 / 255.0).collect();
    Input::F32(vec![1, 3, side, side], values)
}

pub fn dense_input() -> Input {
    let values = (0..DENSE_WIDTH).map(|i| (i % 17) as f32 / 17.0).collect();
    Input::F32(vec![1, DENSE_WIDTH as i64], values)
}

pub fn small_input() -> Input {
    Input::F32(vec![1, 16], (0..16).map(|i| i as f32).collect())
}

/// A model file without a handler, on `threads` threads.
pub fn passthrough(
    setup: &Setup,
    name: &str,
    model: &Path,
    threads: usize,
) -> anyhow::Result<PathBuf> {
    package(setup, name, model, &format!("threads = {threads}\n"), None)
}

/// The same, with as many threads as wick takes by itself.
pub fn passthrough_default_threads(
    setup: &Setup,
    name: &str,
    model: &Path,
) -> anyhow::Result<PathBuf> {
    package(setup, name, model, "", None)
}

/// A model behind a handler that only forwards.
pub fn relay(setup: &Setup, name: &str, model: &Path, threads: usize) -> anyhow::Result<PathBuf> {
    let shape = format!("[-1, 3, {PICTURE}, {PICTURE}]");
    let io = relay_io(["x", "FP32", &shape], ["y", "[-1, -1]"]);
    package(setup, name, model, &format!("threads = {threads}\n"), Some(&io))
}

/// Magika behind a handler that only forwards: tokens of some files in, what they are out.
pub fn magika_relay(setup: &Setup, model: &Path, threads: usize) -> anyhow::Result<PathBuf> {
    let io = relay_io(["bytes", "INT32", "[-1, 2048]"], ["target_label", "[-1, -1]"]);
    package(setup, "magika-relay", model, &format!("threads = {threads}\n"), Some(&io))
}

/// The smallest model behind a handler that only forwards.
pub fn small_relay(setup: &Setup) -> anyhow::Result<PathBuf> {
    let model = setup.folder("models")?.join("small.onnx");
    fs::write(&model, onnx::dense(16, 1))?;
    let io = relay_io(["x", "FP32", "[-1, 16]"], ["y", "[-1, 16]"]);
    package(setup, "small-relay", &model, "threads = 1\n", Some(&io))
}

/// Four floats behind a handler that only forwards.
pub fn tiny_relay(setup: &Setup, model: &Path) -> anyhow::Result<PathBuf> {
    let io = relay_io(["x", "FP32", "[1, 4]"], ["y", "[1, 4]"]);
    package(setup, "tiny-handler", model, "threads = 1\n", Some(&io))
}

/// A model file without a handler, whose requests wait for a turn no longer than told.
pub fn impatient(
    setup: &Setup,
    name: &str,
    model: &Path,
    queue_timeout: Duration,
) -> anyhow::Result<PathBuf> {
    let millis = queue_timeout.as_millis();
    let limits = format!("threads = 1\n\n[limits]\nqueue_timeout = \"{millis}ms\"\n");
    package(setup, name, model, &limits, None)
}

/// The smallest model as a package without code.
pub fn small_passthrough(setup: &Setup) -> anyhow::Result<PathBuf> {
    let model = setup.folder("models")?.join("small.onnx");
    fs::write(&model, onnx::dense(16, 1))?;
    passthrough(setup, "small", &model, 1)
}

/// The weight-bound network, with or without batching.
pub fn dense(setup: &Setup, name: &str, batch: Option<&str>) -> anyhow::Result<PathBuf> {
    let model = setup.folder("models")?.join("dense.onnx");
    if !model.exists() {
        fs::write(&model, onnx::dense(DENSE_WIDTH, DENSE_LAYERS))?;
    }
    let batch = batch.map(|batch| format!("batch = {batch}\n")).unwrap_or_default();
    package(setup, name, &model, &batch, None)
}

/// A network of resnet50's shape and size, 100 MB.
pub fn resnet(setup: &Setup) -> anyhow::Result<PathBuf> {
    let model = setup.folder("models")?.join("resnet.onnx");
    fs::write(&model, onnx::resnet50_shaped())?;
    package(setup, "resnet", &model, "threads = 2\n", None)
}

/// The filetype example with its real model, on `threads` threads.
pub fn filetype(setup: &Setup, threads: usize) -> anyhow::Result<PathBuf> {
    let folder = setup.folder("filetype")?;
    let manifest = fs::read_to_string(setup.filetype.join("wick.toml"))?;
    let manifest = manifest.replace("[[graph]]\n", &format!("[[graph]]\nthreads = {threads}\n"));
    fs::write(folder.join("wick.toml"), manifest)?;
    for file in ["model.onnx", "handler.wasm"] {
        let from = setup.filetype.join(file);
        fs::copy(&from, folder.join(file)).with_context(|| format!("copy {}", from.display()))?;
    }
    Ok(folder)
}

/// Name, datatype and shape of the input, name and shape of the output, which is FP32.
fn relay_io([name, datatype, shape]: [&str; 3], [output, output_shape]: [&str; 2]) -> String {
    format!(
        "[handler]\ncomponent = \"handler.wasm\"\n\n\
         [[input]]\nname = \"{name}\"\ndatatype = \"{datatype}\"\nshape = {shape}\n\n\
         [[output]]\nname = \"{output}\"\ndatatype = \"FP32\"\nshape = {output_shape}\n"
    )
}

fn package(
    setup: &Setup,
    name: &str,
    model: &Path,
    graph: &str,
    handler: Option<&str>,
) -> anyhow::Result<PathBuf> {
    let folder = setup.folder(name)?;
    let mut manifest = format!(
        "[package]\nname = \"{name}\"\nversion = \"1.0.0\"\n\n\
         [[graph]]\nname = \"g\"\npath = \"model.onnx\"\n{graph}\n"
    );
    if let Some(io) = handler {
        manifest.push_str(io);
        fs::copy(setup.guests.join("relay.wasm"), folder.join("handler.wasm"))?;
    }
    fs::write(folder.join("wick.toml"), manifest)?;
    let target = folder.join("model.onnx");
    if !target.exists() {
        fs::hard_link(model, &target).or_else(|_| fs::copy(model, &target).map(drop))?;
    }
    Ok(folder)
}
