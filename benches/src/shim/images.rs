//! The images that the pods run, made and imported into the cluster's containerd.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use wick_e2e::image::Image;
use wick_testing::onnx;

use crate::setup::Setup;

use super::parts::Parts;

/// Names of images that containerd has.
pub struct Images {
    /// `benches/native` as a server.
    pub native: &'static str,
    /// A package of a tiny model without code, on the built-in backend.
    pub tiny: &'static str,
    /// The same on ONNX Runtime.
    pub tiny_onnxruntime: &'static str,
    /// A `wasi:http` guest with a fresh instance for each request.
    pub web: &'static str,
    /// The same, with instances that are used again.
    pub web_reused: &'static str,
}

const IMAGES: Images = Images {
    native: "docker.io/local/bench-native:1",
    tiny: "docker.io/local/bench-tiny:1",
    tiny_onnxruntime: "docker.io/local/bench-tiny-onnxruntime:1",
    web: "docker.io/local/bench-web:1",
    web_reused: "docker.io/local/bench-web-reused:1",
};

/// Make all images and import them.
pub fn import(setup: &Setup, parts: &Parts) -> anyhow::Result<Images> {
    let folder = setup.folder("images")?;
    let tar = folder.join("native.tar");
    let native = Image::new(IMAGES.native).program("/native", &parts.native)?;
    native.entrypoint(&["/native", "serve"]).write(&tar)?;
    load(parts, &tar)?;
    let model = folder.join("model.onnx");
    fs::write(&model, onnx::dense(16, 1))?;
    for (reference, backend) in [(IMAGES.tiny, "tract"), (IMAGES.tiny_onnxruntime, "onnxruntime")] {
        let text = format!(
            "[package]\nname = \"small\"\nversion = \"1.0.0\"\n\n[[graph]]\nname = \"g\"\n\
             path = \"model.onnx\"\nthreads = 1\nbackend = \"{backend}\"\n"
        );
        pack(setup, parts, reference, &text, &model)?;
    }
    let guest = setup.guests.join("web.wasm");
    for (reference, reuse) in [(IMAGES.web, 1), (IMAGES.web_reused, 1000)] {
        let text = format!(
            "[package]\nname = \"web\"\nversion = \"1.0.0\"\n\n[handler]\n\
             component = \"web.wasm\"\nreuse = {reuse}\n\n[limits]\nconcurrency = 32\n"
        );
        pack(setup, parts, reference, &text, &guest)?;
    }
    Ok(IMAGES)
}

/// Pack a manifest and one file, and import the image.
fn pack(
    setup: &Setup,
    parts: &Parts,
    reference: &str,
    manifest: &str,
    file: &Path,
) -> anyhow::Result<()> {
    let name: String = reference.chars().filter(char::is_ascii_alphanumeric).collect();
    let package = setup.folder(&format!("images/{name}"))?;
    fs::write(package.join("wick.toml"), manifest)?;
    fs::copy(file, package.join(file.file_name().context("a file without a name")?))?;
    let tar: PathBuf = package.with_extension("tar");
    let mut wick = Command::new(&setup.wick);
    wick.args(["pack", "--format", "tar", "--name", reference, "-o"]).arg(&tar).arg(&package);
    run(&mut wick)?;
    load(parts, &tar)
}

fn load(parts: &Parts, tar: &Path) -> anyhow::Result<()> {
    let mut ctr = Command::new(&parts.ctr);
    ctr.arg("-a").arg(&parts.containerd).args(["-n", "k8s.io", "images", "import"]).arg(tar);
    run(&mut ctr)
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {error}");
    Ok(())
}
