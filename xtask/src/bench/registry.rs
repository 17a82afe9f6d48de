//! What the benchmark of registries needs beside the executables: a registry, and curl.

use std::process::Command;

use anyhow::ensure;

use crate::house::House;
use crate::registry;
use crate::tools::find_on_path;

pub fn run(house: &House, bench: &mut Command) -> anyhow::Result<()> {
    for program in ["curl", "sha256sum"] {
        ensure!(
            find_on_path(program).is_some(),
            "{program} is not on PATH: pulls are measured by it"
        );
    }
    bench.env(registry::VARIABLE, registry::executable(house)?);
    super::run_it(bench)
}
