//! Wheels from the Python package index by its ordinary client. Nothing is installed: a
//! wheel is an archive, unpacked into a scratch folder.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::tools::{self, Scratch};

/// A pinned wheel. The same file is taken on every machine, whatever Python it has.
pub struct Wheel {
    pub name: &'static str,
    pub version: &'static str,
    /// Platform tag, such as `manylinux_2_28_x86_64`.
    pub platform: &'static str,
    /// Python version, implementation and ABI tags.
    pub python: [&'static str; 3],
}

/// Tags of a wheel without compiled Python code.
pub const ANY_PYTHON: [&str; 3] = ["3.11", "py", "none"];

/// Download a wheel and unpack it; the files lie under the returned folder.
pub fn unpack(wheel: &Wheel, scratch: &Scratch) -> anyhow::Result<PathBuf> {
    check_pip()?;
    let download = scratch.path().join(format!("{}-wheel", wheel.name));
    let [version, implementation, abi] = wheel.python;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]);
    pip.args(["--only-binary=:all:", "--platform", wheel.platform, "--python-version", version]);
    pip.args(["--implementation", implementation, "--abi", abi, "--dest"]).arg(&download);
    pip.arg(format!("{}=={}", wheel.name, wheel.version));
    tools::output(&mut pip).with_context(|| format!("download {}", wheel.name))?;
    let file = fs::read_dir(&download)?.next().context("pip downloaded nothing")??.path();
    let folder = scratch.path().join(wheel.name);
    let mut unzip = Command::new("python3");
    unzip.args(["-m", "zipfile", "-e"]).arg(&file).arg(&folder);
    tools::output(&mut unzip).with_context(|| format!("unpack {}", file.display()))?;
    Ok(folder)
}

fn check_pip() -> anyhow::Result<()> {
    if tools::find_on_path("python3").is_none() {
        bail!("there is no python3: install Python 3 with pip (Debian: python3-pip)");
    }
    let mut pip = Command::new("python3");
    if tools::output(pip.args(["-m", "pip", "--version"])).is_err() {
        bail!("python3 has no pip: install it (Debian: python3-pip)");
    }
    Ok(())
}
