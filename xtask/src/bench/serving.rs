//! What the benchmark of the serving layer needs beside the executables: the servers that
//! wick is compared with, each in a virtual environment of its own.

use std::process::Command;

use crate::clients;
use crate::house::House;

/// What tells the benchmark where a server's Python is, and the list of what is in it.
const PEERS: [(&str, &str); 3] = [
    ("WICK_PEER_MLSERVER", "benches/peers/mlserver.txt"),
    ("WICK_PEER_KSERVE", "benches/peers/kserve.txt"),
    ("WICK_PEER_TRITON", "benches/peers/triton.txt"),
];

pub fn run(house: &House, bench: &mut Command) -> anyhow::Result<()> {
    for (variable, list) in PEERS {
        bench.env(variable, clients::environment(house, list)?);
    }
    bench.env("WICK_BENCH_TABLE", house.target.join("bench/serving.md"));
    super::run_it(bench)
}
