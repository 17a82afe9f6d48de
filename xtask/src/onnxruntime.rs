//! ONNX Runtime for tests, demo and benchmarks: its shared library, out of the wheel.

use std::env::consts::ARCH;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, bail, ensure};

use crate::house::House;
use crate::pip::{self, Wheel};
use crate::tools::{self, Scratch};

/// Folder under the backends and the library in it; both name the version.
pub const FOLDER: &str = "onnxruntime-1.32.0";
pub const LIBRARY: &str = "libonnxruntime.so.1.32.0";

const VERSION: &str = "1.32.0";

/// Wheels exist for every Python; which one is taken does not matter for the library.
const PYTHON: [&str; 3] = ["3.11", "cp", "cp311"];

/// Platform tag and digest of the library for this machine.
fn pinned() -> anyhow::Result<(&'static str, &'static str)> {
    Ok(match ARCH {
        "x86_64" => (
            "manylinux_2_28_x86_64",
            "6c1585d1bbf45b0712ea4a21b705c5fcb4ba04ff2e30f1fbf81a49faf658638f",
        ),
        "aarch64" => (
            "manylinux_2_28_aarch64",
            "49852228a93995158b2a813d4df487d47a1b76b0eaa894507ef49e91b6d7954a",
        ),
        other => bail!("no ONNX Runtime is pinned for {other}: x86_64 and aarch64 are supported"),
    })
}

/// Fetch the library if it is missing or damaged. The caller holds the setup lock.
pub fn fetch(house: &House) -> anyhow::Result<()> {
    let (platform, sha256) = pinned()?;
    let to = house.onnxruntime();
    if tools::sha256(&to)?.as_deref() == Some(sha256) {
        return Ok(());
    }
    eprintln!("setup: ONNX Runtime {VERSION} from PyPI into {}", house.backends().display());
    let wheel = Wheel { name: "onnxruntime", version: VERSION, platform, python: PYTHON };
    let scratch = Scratch::new("onnxruntime")?;
    let member = pip::unpack(&wheel, &scratch)?.join("onnxruntime/capi").join(LIBRARY);
    let bytes = fs::read(&member).with_context(|| format!("read {}", member.display()))?;
    let found = tools::sha256_of(&bytes);
    ensure!(found == sha256, "{LIBRARY} has the digest {found}, but {sha256} is pinned");
    tools::write_whole(&to, &bytes)?;
    fs::set_permissions(&to, fs::Permissions::from_mode(0o755))?;
    Ok(())
}
