//! Devices without an accelerator: WebGPU on Mesa's software Vulkan, and Qualcomm's NPU in its emulator.

mod engines;
mod fallbacks;
mod mismatches;
mod pods;

use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::Context as _;
use serde_json::Value;

use crate::setup::{Setup, path};

const QNN: &str = "qnn-mismatch";
const WEBGPU: &str = "webgpu-mismatch";
const FALLBACKS: &str = "silent-fallbacks";
const GAIN: &str = "cached-engine-gain";

/// Seconds that a software driver may need for a model's first answer: it compiles all shaders.
const FIRST: u32 = 100;

/// Programs and files of the bars.
struct Lab<'s> {
    setup: &'s Setup,
    backends: PathBuf,
    vulkan: PathBuf,
    quantised: PathBuf,
}

pub fn run(setup: &Setup, only: &[String]) -> anyhow::Result<()> {
    let lab = Lab {
        setup,
        backends: path("WICK_BACKENDS")?,
        vulkan: path("WICK_BENCH_VULKAN")?,
        quantised: path("WICK_BENCH_QUANTISED")?,
    };
    let wanted = |bar: &str| only.is_empty() || only.iter().any(|one| one == bar);
    if wanted(WEBGPU) {
        mismatches::webgpu(&lab)?;
    }
    if wanted(QNN) {
        mismatches::qnn(&lab)?;
    }
    if wanted(FALLBACKS) {
        fallbacks::run(&lab)?;
    }
    if wanted(GAIN) {
        engines::run(&lab)?;
    }
    Ok(())
}

/// What `wick` has printed as JSON. Libraries of providers print lines of their own beside it.
fn json_of(output: &Output) -> anyhow::Result<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| serde_json::from_str(line).ok());
    line.with_context(|| {
        let error = String::from_utf8_lossy(&output.stderr);
        format!("{} without an answer: {error}", output.status)
    })
}

// === impl Lab ===

impl Lab<'_> {
    /// `wick` with the providers, and with a cache of the bar's own.
    fn wick(&self) -> Command {
        let mut wick = Command::new(&self.setup.wick);
        wick.env("WICK_BACKENDS", &self.backends);
        wick.env("XDG_CACHE_HOME", self.setup.scratch.path().join("cache"));
        wick
    }

    /// What lets a software driver count as a GPU.
    fn soften(&self, wick: &mut Command) {
        let driver = self.vulkan.join("lvp.json");
        wick.env("ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER", "1")
            .env("VK_ICD_FILENAMES", &driver)
            .env("VK_DRIVER_FILES", &driver)
            .env("LD_LIBRARY_PATH", self.vulkan.join("usr/lib").join(format!("{ARCH}-linux-gnu")))
            .env("XDG_RUNTIME_DIR", self.setup.scratch.path());
    }

    /// A package of one model, for one kind of device.
    fn package(
        &self,
        name: &str,
        model: &Path,
        device: &str,
        share: f32,
    ) -> anyhow::Result<PathBuf> {
        let folder = self.setup.folder(&format!("{name}-{device}"))?;
        fs::copy(model, folder.join("model.onnx"))?;
        let manifest = format!(
            "[package]\nname = \"{name}\"\nversion = \"1.0.0\"\n\n[[graph]]\nname = \"{name}\"\n\
             path = \"model.onnx\"\ndevices = [\"{device}\"]\nmin_device_share = {share:.2}\n\n\
             [limits]\ntimeout = \"{FIRST}s\"\n"
        );
        fs::write(folder.join("wick.toml"), manifest)?;
        Ok(folder)
    }
}
