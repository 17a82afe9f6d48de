//! `cargo xtask bench NAME [BAR...]`: set up, build, run; the lines go to standard output.

mod devices;
mod fleet;
mod registry;
mod scale;
mod serving;
mod shim;

use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

use crate::house::House;
use crate::setup;
use crate::tools;

pub fn run(house: &House, args: &[String]) -> anyhow::Result<()> {
    ensure!(!args.is_empty(), "usage: cargo xtask bench NAME [BAR...], such as `bench runtime`");
    setup::run(house)?;
    build(house)?;
    let mut bench = Command::new(house.target.join("debug/wick-benches"));
    bench.args(args).current_dir(&house.root).env("WICK_BIN", house.wick());
    house.set_variables(&mut bench);
    match args.first().map(String::as_str) {
        Some("devices") => devices::run(house, &args[1..], &mut bench),
        Some("fleet") => fleet::run(house, &args[1..], &mut bench),
        Some("registry") => registry::run(house, &mut bench),
        Some("scale") => scale::run(house, &args[1..], &mut bench),
        Some("serving") => serving::run(house, &mut bench),
        Some("shim") => shim::run(house, &mut bench),
        _ => run_it(&mut bench),
    }
}

fn run_it(bench: &mut Command) -> anyhow::Result<()> {
    let status = bench.stdin(Stdio::null()).status().context("start wick-benches")?;
    ensure!(status.success(), "the benchmark failed: {status}");
    Ok(())
}

/// Build every executable of the workspace. All at once, as the tests do: cargo chooses
/// the features of dependencies by what it is asked to build, and would build them again.
/// All but this program, which is built or it would not ask.
pub fn build(house: &House) -> anyhow::Result<()> {
    eprintln!("build: wick");
    tools::run(house.cargo().args(["build", "--workspace", "--exclude", "xtask", "--bins"]))
}
