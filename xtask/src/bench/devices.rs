//! What the benchmark of devices needs beside the executables: providers that run without an accelerator, and a
//! software driver.

use std::process::Command;

use crate::devices;
use crate::house::House;

pub fn run(house: &House, bench: &mut Command) -> anyhow::Result<()> {
    let driver = devices::prepare(house)?;
    bench.env("WICK_BACKENDS", house.backends()).env("WICK_BENCH_VULKAN", driver);
    bench.env("WICK_BENCH_QUANTISED", house.root.join(devices::QUANTISED));
    super::run_it(bench)
}
