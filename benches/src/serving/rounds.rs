//! Turns of all servers in rounds: what slows the machine for a while slows each of them.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::stats::{median, round};

use super::closed::{self, Slice};
use super::lineup::Lineup;
use super::question::{Protocol, Question};

pub const CONCURRENCIES: [usize; 3] = [1, 4, 16];

/// How long and how often each server has its turn.
#[derive(Clone, Copy)]
pub struct Pace {
    pub rounds: usize,
    pub slice: Duration,
    pub overload: Duration,
}

/// How a model is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Case {
    pub protocol: Protocol,
    pub concurrency: usize,
}

/// Medians over the rounds.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub cpu_ms: f64,
}

/// Figures of each server in each case.
pub type Results = BTreeMap<Case, BTreeMap<&'static str, Figures>>;

// === impl Pace ===

impl Pace {
    /// What the published figures are measured with.
    pub const FULL: Self =
        Self { rounds: 5, slice: Duration::from_millis(1500), overload: Duration::from_secs(30) };

    /// For work on the benchmark itself.
    pub const QUICK: Self =
        Self { rounds: 1, slice: Duration::from_millis(300), overload: Duration::from_secs(8) };
}

// === impl Figures ===

impl Figures {
    fn of(slices: &[Slice]) -> Self {
        let middle =
            |value: fn(&Slice) -> f64| median(&slices.iter().map(value).collect::<Vec<f64>>());
        Self {
            per_second: middle(|slice| slice.per_second),
            p50_ms: middle(|slice| slice.p50_ms),
            p99_ms: middle(|slice| slice.p99_ms),
            cpu_ms: middle(|slice| slice.cpu_ms),
        }
    }

    pub fn json(&self) -> Value {
        json!({
            "per_second": round(self.per_second),
            "p50_ms": round(self.p50_ms),
            "p99_ms": round(self.p99_ms),
            "server_cpu_ms_per_request": round(self.cpu_ms),
        })
    }
}

// === impl Case ===

impl Case {
    /// All of some protocols.
    pub fn of(protocols: &[Protocol]) -> Vec<Self> {
        let of = |&protocol| CONCURRENCIES.map(|concurrency| Self { protocol, concurrency });
        protocols.iter().flat_map(of).collect()
    }

    pub fn name(self) -> String {
        format!("{} x{}", self.protocol.name(), self.concurrency)
    }
}

/// Measure a model in all cases; `also` runs once a round, for what is measured beside.
pub fn run(
    lineup: &Lineup,
    question: &Question,
    cases: &[Case],
    pace: Pace,
    mut also: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Results> {
    let mut slices: BTreeMap<(Case, &'static str), Vec<Slice>> = BTreeMap::new();
    for index in 0..pace.rounds {
        eprintln!("{}: round {} of {}", question.name, index + 1, pace.rounds);
        also()?;
        for case in cases {
            for contender in lineup.with(case.protocol) {
                if !contender.serves(question) {
                    continue;
                }
                let target = lineup.target(contender, question, case.protocol);
                let slice =
                    closed::run(&target, lineup.pid(contender), case.concurrency, pace.slice);
                let slice = slice.with_context(|| {
                    format!("{}, {} by {}", contender.name, question.name, case.name())
                })?;
                slices.entry((*case, contender.name)).or_default().push(slice);
            }
        }
    }
    let mut results = Results::new();
    for ((case, name), slices) in slices {
        results.entry(case).or_default().insert(name, Figures::of(&slices));
    }
    Ok(results)
}

pub fn detail(results: &Results) -> Value {
    let servers = |figures: &BTreeMap<&'static str, Figures>| -> Value {
        figures.iter().map(|(name, figures)| ((*name).to_owned(), figures.json())).collect()
    };
    results.iter().map(|(case, figures)| (case.name(), servers(figures))).collect()
}
