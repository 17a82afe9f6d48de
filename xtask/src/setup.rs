//! Everything that tests, demo and benchmarks need and that a clone lacks. A second run
//! checks digests and builds nothing.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use crate::house::House;
use crate::tools;
use crate::{examples, guests, lock, models, mqtt, onnxruntime};

/// Fetch, build and copy whatever is missing.
pub fn run(house: &House) -> anyhow::Result<()> {
    let _lock = lock::hold(house)?;
    for target in [guests::COMPONENT, guests::MODULE] {
        add_target(house, target)?;
    }
    // Also what only other targets need: tests build new packages without a network.
    tools::run(house.cargo().args(["fetch", "--locked", "--quiet"]))?;
    models::fetch(house)?;
    onnxruntime::fetch(house)?;
    if tools::find_on_path("mosquitto").is_none() && tools::find_on_path("apt-get").is_some() {
        mqtt::mosquitto(house)?;
    }
    guests::build(house)?;
    examples::fill(house)
}

/// Add a compilation target to the pinned toolchain if its standard library is missing.
pub fn add_target(house: &House, target: &str) -> anyhow::Result<()> {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir", "--target", target]).current_dir(&house.root);
    let folder = tools::output(&mut rustc).context("ask rustc for its targets")?;
    if Path::new(folder.trim()).is_dir() {
        return Ok(());
    }
    eprintln!("setup: rustup target add {target}");
    let mut rustup = Command::new("rustup");
    rustup.args(["target", "add", target]).current_dir(&house.root);
    tools::run(&mut rustup)
        .with_context(|| format!("the toolchain lacks {target}, and rustup could not add it"))
}
