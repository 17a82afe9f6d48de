//! What the benchmark of scaling needs beside the executables: a cluster with the shim, the real
//! Helm for the chart, and MLServer. Its first two bars need none of these.

use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::house::House;
use crate::{chart, clients, cluster, e2e, shim};

/// The cluster's name. It is the benchmark's own and is stopped at its end.
const CLUSTER: &str = "bench-scale";

/// How bars begin that need no cluster.
const ALONE: &str = "activator-";

pub fn run(house: &House, bars: &[String], bench: &mut Command) -> anyhow::Result<()> {
    if !bars.is_empty() && bars.iter().all(|bar| bar.starts_with(ALONE)) {
        return super::run_it(bench);
    }
    bench.env("WICK_PEER_MLSERVER", clients::environment(house, "benches/peers/mlserver.txt")?);
    in_cluster(house, CLUSTER, &[], bench)
}

/// Run a benchmark with a cluster of its own, which may install the chart; `flags` are those of `cluster up`.
pub fn in_cluster(
    house: &House,
    name: &str,
    flags: &[String],
    bench: &mut Command,
) -> anyhow::Result<()> {
    ensure!(cluster::is_root(), "the benchmark starts a cluster: run it as root");
    shim::build(house)?;
    bench.env("WICK_E2E_CLUSTER", name);
    bench.env("WICK_XTASK", e2e::this_program()?);
    bench.env("WICK_E2E_PROGRAMS", cluster::programs(house)?);
    bench.env(chart::VARIABLE, chart::helm(house)?.context("there is no `go` for Helm")?);
    let mut up = vec![name.to_owned()];
    up.extend_from_slice(flags);
    cluster::up_with(house, &up)?;
    let done = super::run_it(bench);
    let stopped = cluster::down(house, name);
    done.and(stopped)
}
