//! Bars of the runtime: what wick adds to an inference, and how fast it starts.

mod batching;
mod cold_start;
mod instantiate;
mod leak;
pub mod load;
mod overhead;
mod throughput;

pub use overhead::{LIFE, life};

use std::process::Command;

use crate::setup::Setup;

type Bench = fn(&Setup) -> anyhow::Result<()>;

/// Each benchmark with the bars that it reports.
const BENCHES: [(&[&str], Bench); 6] = [
    (&["handler-overhead-ms", "handler-overhead-ratio", "passthrough-overhead-ms"], overhead::run),
    (&["throughput-vs-ort"], throughput::run),
    (&["instantiate-us"], instantiate::run),
    (&["cold-start-ms", "cold-start-large-ms"], cold_start::run),
    (&["batching-gain"], batching::run),
    (&["leak-growth"], leak::run),
];

/// Run all benchmarks, or those that report one of the bars `only`. Each gets a process
/// of its own: ONNX Runtime allows one environment a process, and memory that one
/// benchmark has touched is no part of the next.
pub fn run(setup: &Setup, only: &[String]) -> anyhow::Result<()> {
    let known: Vec<&str> = BENCHES.iter().flat_map(|(bars, _)| bars.iter().copied()).collect();
    for bar in only {
        anyhow::ensure!(known.contains(&bar.as_str()), "no bar `{bar}`; there is: {known:?}");
    }
    let asked = |bars: &[&str]| only.iter().any(|bar| bars.contains(&bar.as_str()));
    for (bars, bench) in BENCHES {
        match only {
            [one] if bars.contains(&one.as_str()) => {
                eprintln!("== {}", bars.join(", "));
                bench(setup)?;
            }
            _ if only.len() != 1 && (only.is_empty() || asked(bars)) => alone(bars[0])?,
            _ => {}
        }
    }
    Ok(())
}

fn alone(bar: &str) -> anyhow::Result<()> {
    let status = Command::new(std::env::current_exe()?).args(["runtime", bar]).status()?;
    anyhow::ensure!(status.success(), "the benchmark of `{bar}` failed: {status}");
    Ok(())
}
