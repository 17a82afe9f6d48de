//! Bars of scaling: how fast a Model is that has no pod, and what operator and activator cost.
//!
//! ```text
//!  between  one process before another:      activator-p99-ms, activator-throughput-ratio
//!  cold     a cluster, Models without pods:  cold-first-answer-p50-s, cold-first-answer-p99-s
//!  cycles   a Model that sleeps and wakes:   lost-requests
//!  many     3,000 Models in one cluster:     operator-rss-mib, operator-change-s
//! ```

mod between;
mod cold;
mod cycles;
mod many;
mod peer;
mod pods;
mod relay;
mod watch;

use crate::setup::Setup;

type Bench = fn(&Setup, &[String]) -> anyhow::Result<()>;

/// Each benchmark with the bars that it reports.
const BENCHES: [(&[&str], Bench); 4] = [
    (&[between::P99, between::THROUGHPUT], between::run),
    (&[cold::P50, cold::P99], cold::run),
    (&[cycles::LOST], cycles::run),
    (&[many::RSS, many::CHANGE], many::run),
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
            bench(setup, only)?;
        }
    }
    Ok(())
}
