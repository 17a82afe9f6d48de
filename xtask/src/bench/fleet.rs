//! What the benchmark of the fleet needs beside the executables: Debian's mosquitto, files for a thousand
//! connections, and a cluster for the agent that idles beside one.

use std::process::Command;

use super::scale;
use crate::house::House;
use crate::{fleet, mqtt};

/// The cluster's name. It is the benchmark's own and is stopped at its end.
const CLUSTER: &str = "bench-fleet";

/// How bars begin that need one.
const BESIDE: &str = "agent-";

pub fn run(house: &House, bars: &[String], bench: &mut Command) -> anyhow::Result<()> {
    fleet::more_files()?;
    bench.env("WICK_TEST_MOSQUITTO", mqtt::mosquitto(house)?);
    if bars.is_empty() || bars.iter().any(|bar| bar.starts_with(BESIDE)) {
        return scale::in_cluster(house, CLUSTER, &[], bench);
    }
    super::run_it(bench)
}
