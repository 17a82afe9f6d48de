//! Bars of the runtime: what wick adds to an inference, and how fast it starts.

mod batching;
mod cold_start;
mod instantiate;
mod leak;
mod load;
mod overhead;
mod throughput;

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

/// Run all benchmarks, or those that report one of the bars `only`.
pub fn run(setup: &Setup, only: &[String]) -> anyhow::Result<()> {
    let known: Vec<&str> = BENCHES.iter().flat_map(|(bars, _)| bars.iter().copied()).collect();
    for bar in only {
        anyhow::ensure!(known.contains(&bar.as_str()), "no bar `{bar}`; there is: {known:?}");
    }
    for (bars, bench) in BENCHES {
        if only.is_empty() || only.iter().any(|bar| bars.contains(&bar.as_str())) {
            eprintln!("== {}", bars.join(", "));
            bench(setup)?;
        }
    }
    Ok(())
}
