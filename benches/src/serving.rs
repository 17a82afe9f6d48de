//! Bars of the serving layer: wick beside the servers that its users come from.
//!
//! ```text
//!  tiny      four floats, one addition:   tiny-vs-python, tiny-vs-triton, tiny-p99-vs-best,
//!                                         tiny-cpu-vs-triton
//!  large     a model of milliseconds:     large-vs-python, large-vs-triton, large-cpu-vs-ort,
//!                                         grpc-vs-ort
//!  json      150,528 floats as text:      json-vs-best
//!  overload  wick alone, three times what it can do:   overload-p99-ratio
//! ```

mod bars;
mod channel;
pub mod closed;
pub mod connection;
pub mod cpu;
mod lineup;
mod message;
mod ort;
mod overload;
mod peers;
mod process;
pub mod question;
mod rounds;
mod table;

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::direct::Floor;
use crate::setup::Setup;

use lineup::Lineup;
use ort::Turns;
use question::Question;
use rounds::{Case, Pace};

pub use ort::{BARE, bare};

const TINY: [&str; 4] =
    ["tiny-vs-python", "tiny-vs-triton", "tiny-p99-vs-best", "tiny-cpu-vs-triton"];
const LARGE: [&str; 4] = ["large-vs-python", "large-vs-triton", "large-cpu-vs-ort", "grpc-vs-ort"];
const SUM: [&str; 1] = ["json-vs-best"];
const OVERLOAD: [&str; 1] = ["overload-p99-ratio"];

/// Short turns, for work on the benchmark itself; its figures mean nothing.
const QUICK: &str = "--quick";

/// Run all benchmarks, or those that report one of the bars `only`.
pub fn run(setup: &Setup, only: &[String]) -> anyhow::Result<()> {
    let pace = if only.iter().any(|arg| arg == QUICK) { Pace::QUICK } else { Pace::FULL };
    let only: Vec<&str> = only.iter().map(String::as_str).filter(|arg| *arg != QUICK).collect();
    let known = [&TINY[..], &LARGE, &SUM, &OVERLOAD].concat();
    for bar in &only {
        ensure!(known.contains(bar), "no bar `{bar}`; there is: {known:?}");
    }
    let asked = |bars: &[&str]| only.is_empty() || only.iter().any(|bar| bars.contains(bar));
    let floor = Floor::new(&setup.onnxruntime)?;
    let about = machine()?;
    let mut questions = Vec::new();
    if asked(&TINY) {
        questions.push(Question::tiny(setup, &floor)?);
    }
    if asked(&LARGE) {
        questions.push(Question::large(setup, &floor)?);
    }
    if asked(&SUM) {
        questions.push(Question::sum(setup, &floor)?);
    }
    if !questions.is_empty() {
        beside_peers(setup, &questions, pace, &about)?;
    }
    if asked(&OVERLOAD) {
        overload::run(setup, &Question::large(setup, &floor)?, pace, &about)?;
    }
    Ok(())
}

fn beside_peers(
    setup: &Setup,
    questions: &[Question],
    pace: Pace,
    about: &Value,
) -> anyhow::Result<()> {
    let lineup = Lineup::start(setup, questions)?;
    let mut parts: Vec<table::Part> = Vec::new();
    for question in questions {
        let cases = Case::of(question.protocols);
        let heading = match question.name {
            "large" => {
                let mut floor =
                    Turns::new(question.model.clone(), question.input.shape()[0], pace.slice)?;
                let results = rounds::run(&lineup, question, &cases, pace, || floor.take())?;
                bars::large(&results, &floor, about)?;
                parts.push(("A model of 5 to 20 ms (Magika)", results));
                continue;
            }
            "sum" => "150,528 floats as JSON",
            _ => "The smallest model",
        };
        let results = rounds::run(&lineup, question, &cases, pace, || Ok(()))?;
        match question.name {
            "sum" => bars::json(&results, about)?,
            _ => bars::tiny(&results, about)?,
        }
        parts.push((heading, results));
    }
    let path = std::env::var_os("WICK_BENCH_TABLE").map(PathBuf::from);
    let path = path.context("WICK_BENCH_TABLE is not set: run it by `cargo xtask bench`")?;
    let machine = about["processor"].as_str().unwrap_or_default();
    let line = format!("{machine}, {} cores", about["cores"]);
    table::write(&path, &line, &parts)
}

/// What the figures were measured on.
pub fn machine() -> anyhow::Result<Value> {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name"));
    let name = name.map(|name| name.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism()?.get();
    Ok(json!({
        "processor": name.unwrap_or(std::env::consts::ARCH),
        "cores": cores,
    }))
}
