//! Bars of the shim: what a pod of a package costs, beside a pod of runc's.
//!
//! ```text
//!  lifecycle   shims called as containerd calls them:   create-start-vs-runc, tasks-vs-runc
//!  pods        pods by CRI in a running cluster:        cri-vs-runc, first-answer-ms,
//!                                                       memory-per-pod-mib, http-vs-native
//! ```

mod bundle;
mod cri;
mod driver;
mod images;
mod lifecycle;
mod parts;
mod phases;
mod pods;

use crate::setup::Setup;

use parts::Parts;

type Bench = fn(&Setup, &Parts) -> anyhow::Result<()>;

/// Each benchmark with the bars that it reports.
const BENCHES: [(&[&str], Bench); 5] = [
    (&["create-start-vs-runc"], lifecycle::create_start),
    (&["tasks-vs-runc"], lifecycle::tasks),
    (&["cri-vs-runc", "first-answer-ms"], pods::start),
    (&["memory-per-pod-mib"], pods::memory),
    (&["http-vs-native"], pods::http),
];

/// Run all benchmarks, or those that report one of the bars `only`.
pub fn run(setup: &Setup, only: &[String]) -> anyhow::Result<()> {
    let known: Vec<&str> = BENCHES.iter().flat_map(|(bars, _)| bars.iter().copied()).collect();
    for bar in only {
        anyhow::ensure!(known.contains(&bar.as_str()), "no bar `{bar}`; there is: {known:?}");
    }
    let parts = Parts::from_env()?;
    for (bars, bench) in BENCHES {
        if only.is_empty() || only.iter().any(|bar| bars.contains(&bar.as_str())) {
            eprintln!("== {}", bars.join(", "));
            bench(setup, &parts)?;
        }
    }
    Ok(())
}
