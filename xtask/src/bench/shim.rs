//! What the benchmark of the shim needs beside the executables: a cluster, whose containerd
//! starts its pods, and two programs in Go.

use std::path::PathBuf;
use std::process::Command;

use anyhow::ensure;

use crate::cluster;
use crate::house::House;
use crate::{shim, tools};

/// The cluster's name. It is the benchmark's own and is stopped at its end.
const CLUSTER: &str = "bench";

pub fn run(house: &House, bench: &mut Command) -> anyhow::Result<()> {
    ensure!(cluster::is_root(), "the benchmark starts pods: run it as root");
    let shim = shim::build(house)?;
    let (native, cri) = (go(house, "native")?, go(house, "cri")?);
    cluster::up(house, CLUSTER)?;
    cluster::stop_kubelet(house, CLUSTER)?;
    let parts = cluster::parts(house, CLUSTER)?;
    let done = super::run_it(
        bench
            .env("WICK_SHIM", shim)
            .env("WICK_NATIVE", native)
            .env("WICK_CRI", cri)
            .env("WICK_RUNC_SHIM", parts.binaries.containerd.join("containerd-shim-runc-v2"))
            .env("WICK_RUNC_FOLDER", &parts.binaries.runc)
            .env("WICK_CTR", parts.binaries.containerd.join("ctr"))
            .env("WICK_CONTAINERD", &parts.containerd_socket)
            .env("WICK_CGROUP", parts.cgroup),
    );
    let stopped = cluster::down(house, CLUSTER);
    done.and(stopped)
}

/// Build a program of `benches` that is written in Go, without C, so that it runs anywhere.
fn go(house: &House, name: &str) -> anyhow::Result<PathBuf> {
    let out = house.target.join("go").join(name);
    let mut go = Command::new("go");
    go.args(["build", "-trimpath", "-ldflags", "-s -w", "-o"]).arg(&out).arg(".");
    go.env("CGO_ENABLED", "0").current_dir(house.root.join("benches").join(name));
    tools::run(&mut go)?;
    Ok(out)
}
