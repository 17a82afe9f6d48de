//! Benchmarks. Each prints one JSON line a bar on standard output and says on
//! standard error what it does. Run them through `cargo xtask bench NAME`, which
//! sets up models, guests and ONNX Runtime first.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark's lines and its progress are its output"
)]

mod bar;
mod bare;
mod devices;
mod direct;
mod fleet;
mod http;
mod meter;
mod packages;
mod registry;
mod runtime;
mod scale;
mod server;
mod serving;
mod setup;
mod shim;
mod stats;

use anyhow::{Context as _, bail};

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let name = args.next().context(
        "usage: wick-benches NAME [BAR...]; there is: devices, fleet, registry, runtime, scale, serving, shim",
    )?;
    let only: Vec<String> = args.collect();
    match name.as_str() {
        // Finds what it needs itself.
        "fleet" => return fleet::run(&only),
        // Its child, so that memory is a process' own.
        fleet::SCALE => return fleet::scale(&only),
        _ => {}
    }
    let setup = setup::Setup::from_env()?;
    match name.as_str() {
        "devices" => devices::run(&setup, &only),
        "registry" => registry::run(&setup, &only),
        "runtime" => runtime::run(&setup, &only),
        "scale" => scale::run(&setup, &only),
        "serving" => serving::run(&setup, &only),
        // A child of `runtime`, since it matters where a process' memory happens to lie.
        runtime::LIFE => runtime::life(&setup, &only),
        // A child of `serving`, so that its processor time is a process' own.
        serving::BARE => serving::bare(&setup, &only),
        "shim" => shim::run(&setup, &only),
        _ => {
            bail!(
                "no benchmark `{name}`; there is: devices, fleet, registry, runtime, scale, serving, shim"
            )
        }
    }
}
