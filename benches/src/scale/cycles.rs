//! A Model that sleeps and wakes again and again while a few clients call it now and then: at any
//! time of its way down and up, and of its end. Every call must be answered well.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::json;
use wick_e2e::caller::Caller;
use wick_e2e::stage::Stage;

use crate::bar;
use crate::serving::machine;
use crate::setup::Setup;

use super::pods::Pods;

pub const LOST: &str = "lost-requests";

/// How often it must have gone to zero and come back.
const CYCLES: usize = 50;

/// Longest that this may take.
const LIMIT: Duration = Duration::from_secs(1800);

const LOOK: Duration = Duration::from_secs(1);

/// Two call; together they are quiet for long enough about every other time.
const CLIENTS: u32 = 2;

pub fn run(_: &Setup, _: &[String]) -> anyhow::Result<()> {
    let stage = Stage::new("cycles")?;
    let scale = json!({"scale": {
        "idleTimeout": "2s", "scaleDownDelay": "1s", "panicWindow": "1s", "stableWindow": "6s",
    }});
    stage.apply(&stage.image("1.0.0")?, &scale)?;
    let addr = stage.address()?;
    let pods = Pods::watch(&stage.cluster.kubectl, &stage.space.name, "wick.dev/model=filetype")?;
    let begun = Instant::now();
    let callers = Caller::start(addr, CLIENTS, gap);
    let mut told = 0;
    loop {
        thread::sleep(LOOK);
        let cycles = pods.count_after(begun).saturating_sub(1);
        if cycles > told {
            eprintln!("scale: cycle {cycles} of {CYCLES}");
            told = cycles;
        }
        if cycles >= CYCLES {
            break;
        }
        ensure!(begun.elapsed() < LIMIT, "{cycles} cycles in {LIMIT:?}");
    }
    let tally = callers.stop()?;
    for lost in &tally.lost {
        eprintln!("scale: lost {lost}");
    }
    let detail = json!({
        "machine": machine()?,
        "cycles": told,
        "answered": tally.answered,
        "slowest_s": tally.slowest.as_secs_f64(),
        "minutes": begun.elapsed().as_secs_f64() / 60.0,
    });
    bar::report(LOST, tally.lost.len() as f64, "requests", detail);
    stage.end()
}

/// From 0 to 16 s, spread evenly: it is 37 times the golden ratio's part of it.
fn gap(count: u32) -> Duration {
    let part = (f64::from(count) * 0.618_034) % 1.0;
    Duration::from_secs_f64(16.0 * part)
}
