//! What the benchmark of devices needs beside the executables: providers that run without an accelerator, and a
//! software driver, which the node of a cluster has, too.

use std::process::Command;

use super::scale;
use crate::devices;
use crate::house::House;

/// The cluster's name. It is the benchmark's own and is stopped at its end.
const CLUSTER: &str = "bench-devices";

/// How bars end that need one.
const IN_PODS: &str = "-mismatch";

pub fn run(house: &House, bars: &[String], bench: &mut Command) -> anyhow::Result<()> {
    let driver = devices::prepare(house)?;
    bench.env("WICK_BACKENDS", house.backends()).env("WICK_BENCH_VULKAN", driver);
    bench.env("WICK_BENCH_QUANTISED", house.root.join(devices::QUANTISED));
    if bars.is_empty() || bars.iter().any(|bar| bar.ends_with(IN_PODS)) {
        return scale::in_cluster(house, CLUSTER, &devices::of_a_node(house)?, bench);
    }
    super::run_it(bench)
}
