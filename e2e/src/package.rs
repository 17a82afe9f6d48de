//! Images of wick packages and of bare components, made of what `cargo xtask setup` built.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::cluster::Cluster;
use crate::image::Image;

/// Where the executables and files are, as `cargo xtask e2e` says.
const WICK: &str = "WICK_BIN";
const GUESTS: &str = "WICK_GUESTS";
const MODULES: &str = "WICK_MODULES";
const EXAMPLES: &str = "WICK_EXAMPLES";

/// Folder of an example's package.
pub fn example(name: &str) -> anyhow::Result<PathBuf> {
    Ok(folder(EXAMPLES)?.join(name))
}

/// An example's package under another version, in a new folder. Images that are to be told apart
/// need one each: containerd takes images with equal configurations for one.
pub fn example_as(name: &str, version: &str, folder: &Path) -> anyhow::Result<()> {
    fs::create_dir(folder).with_context(|| format!("make {}", folder.display()))?;
    for entry in fs::read_dir(example(name)?)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), folder.join(entry.file_name()))?;
        }
    }
    let manifest = fs::read_to_string(folder.join("wick.toml"))?;
    let lines = manifest.lines().map(|line| match line.starts_with("version = ") {
        true => format!("version = \"{version}\"\n"),
        false => format!("{line}\n"),
    });
    fs::write(folder.join("wick.toml"), lines.collect::<String>())?;
    Ok(())
}

/// A compiled component.
pub fn guest(name: &str) -> anyhow::Result<PathBuf> {
    Ok(folder(GUESTS)?.join(name).with_extension("wasm"))
}

/// A compiled core module.
pub fn module(name: &str) -> anyhow::Result<PathBuf> {
    Ok(folder(MODULES)?.join(name).with_extension("wasm"))
}

/// Pack a package and import its image.
pub fn import(cluster: &Cluster, package: &Path, reference: &str) -> anyhow::Result<()> {
    let scratch = tempfile::tempdir().context("make a folder")?;
    let tar = scratch.path().join("image.tar");
    pack(package, reference, &tar)?;
    cluster.import_archive(&tar)
}

/// Pack a package into a tar.
pub fn pack(package: &Path, reference: &str, tar: &Path) -> anyhow::Result<()> {
    let (package, tar) = (package.display().to_string(), tar.display().to_string());
    wick(&["pack", "--format", "tar", "--name", reference, "-o", &tar, &package]).map(drop)
}

/// Run `wick`, which must succeed; what it prints.
pub fn wick(args: &[&str]) -> anyhow::Result<String> {
    wick_with(args, &[])
}

/// The same with more variables.
pub fn wick_with(args: &[&str], env: &[(&str, &str)]) -> anyhow::Result<String> {
    let mut command = Command::new(folder(WICK)?);
    let output = command.args(args).envs(env.iter().copied()).output().context("run `wick`")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "wick {}: {}", args.join(" "), error.trim());
    String::from_utf8(output.stdout).context("what wick prints is text")
}

/// Import an image whose entrypoint is a component, as users of runwasi build them.
pub fn import_bare(cluster: &Cluster, component: &Path, reference: &str) -> anyhow::Result<()> {
    let bytes = fs::read(component).with_context(|| format!("read {}", component.display()))?;
    cluster.import(&Image::new(reference).file("/app.wasm", bytes).entrypoint(&["/app.wasm"]))
}

fn folder(name: &str) -> anyhow::Result<PathBuf> {
    env::var_os(name)
        .map(PathBuf::from)
        .with_context(|| format!("{name} is not set: run `cargo xtask e2e`"))
}
