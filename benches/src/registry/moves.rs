//! What moves after a cut, and after a change of code. Counted between client and registry.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::json;

use super::part::{self, Part};
use crate::bar;
use crate::meter::Meter;
use crate::setup::Setup;

/// Weights of the image that is cut: long enough that a cut in the middle is one.
const CUT: u64 = 200_000_000;

/// How long the line is cut before the pull is given up.
const CUT_LASTS: Duration = Duration::from_secs(1);

/// Weights of the image whose code changes.
const SAME: u64 = 50_000_000;

/// Longest time for half a pull.
const PATIENCE: Duration = Duration::from_secs(60);

/// Cut the line when half has moved, give the pull up, and see what the next one moves.
pub fn resume(setup: &Setup, part: &Part) -> anyhow::Result<()> {
    part.push(setup, "cut:1", "code", &[CUT])?;
    let meter = Meter::start(part.addr)?;
    let image = format!("{}/bench/cut:1", meter.addr);
    let store = setup.scratch.path().join("cut-store");
    let store = store.to_str().context("a path that is no text")?;
    let pull = ["pull", &image, "--plain-http", "--store", store];
    let mut child = part::command(setup, &pull).spawn()?;
    let begun = Instant::now();
    while meter.bytes() < CUT / 2 {
        ensure!(child.try_wait()?.is_none(), "the pull was done before half of it had moved");
        ensure!(begun.elapsed() < PATIENCE, "the pull does not come to its half");
        std::thread::yield_now();
    }
    meter.cut(true);
    // It tries again for a while, in vain.
    std::thread::sleep(CUT_LASTS);
    child.kill()?;
    child.wait()?;
    let first = meter.bytes();
    meter.cut(false);
    part::wick(setup, &pull)?;
    let second = meter.bytes() - first;
    let check = part::wick(setup, &["images", "--check", "--store", store])?;
    ensure!(check["faults"] == json!([]), "{check}");
    let detail = json!({ "first": first, "second": second, "image": CUT });
    bar::report("resume-ratio", second as f64 / CUT as f64, "ratio", detail);
    Ok(())
}

/// Pull a version, and the next with other code and the same weights.
pub fn code_change(setup: &Setup, part: &Part) -> anyhow::Result<()> {
    part.push(setup, "code:1", "one", &[SAME])?;
    part.push(setup, "code:2", "another", &[SAME])?;
    let meter = Meter::start(part.addr)?;
    let store = setup.scratch.path().join("code-store");
    let store = store.to_str().context("a path that is no text")?;
    let mut moved = Vec::new();
    for tag in ["1", "2"] {
        let before = meter.bytes();
        let image = format!("{}/bench/code:{tag}", meter.addr);
        part::wick(setup, &["pull", &image, "--plain-http", "--store", store])?;
        moved.push(meter.bytes() - before);
    }
    let detail = json!({ "first": moved[0], "second": moved[1] });
    bar::report("code-change-ratio", moved[1] as f64 / moved[0] as f64, "ratio", detail);
    Ok(())
}
