//! The static shim, as a node gets it.

use std::env::consts::ARCH;
use std::path::PathBuf;

use crate::house::House;
use crate::{setup, tools};

/// The crate and its executable.
pub const CRATE: &str = "containerd-shim-wick-v1";

/// Build it. It links no library of the machine, since containerd gives its shims a library
/// path with an empty part, which is the container's folder.
pub fn build(house: &House) -> anyhow::Result<PathBuf> {
    let target = target();
    setup::add_target(house, &target)?;
    tools::run(house.cargo().args(["build", "-p", CRATE, "--target", &target]))?;
    Ok(path(house))
}

/// Where it is built.
pub fn path(house: &House) -> PathBuf {
    house.target.join(target()).join("debug").join(CRATE)
}

fn target() -> String {
    format!("{ARCH}-unknown-linux-musl")
}
