//! Bars of registries and the store: what a pull costs beside curl, what moves after a cut and after a
//! change of code, and whether kills leave a store whole.
//!
//! ```text
//!   docker-registry ◀── meter: counts bytes, for those bars that are about bytes ◀── wick pull
//! ```

mod kills;
mod moves;
mod part;
mod speed;

use anyhow::Context as _;

use crate::setup::{Setup, path};

use part::Part;

type Bench = fn(&Setup, &Part) -> anyhow::Result<()>;

/// Each benchmark with the bars that it reports.
const BENCHES: [(&[&str], Bench); 4] = [
    (&["pull-vs-curl", "pull-rss-mib"], speed::pull),
    (&["resume-ratio"], moves::resume),
    (&["code-change-ratio"], moves::code_change),
    (&["kills-corrupt"], kills::kills),
];

/// Run all benchmarks, or those that report one of the bars `only`.
pub fn run(setup: &Setup, only: &[String]) -> anyhow::Result<()> {
    let known: Vec<&str> = BENCHES.iter().flat_map(|(bars, _)| bars.iter().copied()).collect();
    for bar in only {
        anyhow::ensure!(known.contains(&bar.as_str()), "no bar `{bar}`; there is: {known:?}");
    }
    let part = Part::start(&path("WICK_TEST_REGISTRY")?, &setup.folder("docker-registry")?);
    let part = part.context("start a registry")?;
    for (bars, bench) in BENCHES {
        if only.is_empty() || only.iter().any(|bar| bars.contains(&bar.as_str())) {
            eprintln!("== {}", bars.join(", "));
            bench(setup, &part)?;
        }
    }
    Ok(())
}
