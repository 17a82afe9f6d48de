//! Models that sleep and wake again and again while somebody calls them now and then: at any time of
//! their way down, and after it. Every call must be answered well.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::json;
use wick_e2e::caller::{Caller, Tally};
use wick_e2e::stage::Stage;

use crate::bar;
use crate::serving::machine;
use crate::setup::Setup;
use crate::stats::round;

use super::pods::Pods;

pub const LOST: &str = "lost-requests";

/// How often it must have gone to zero and come back.
const CYCLES: usize = 50;

/// Longest that this may take.
const LIMIT: Duration = Duration::from_secs(1800);

const LOOK: Duration = Duration::from_secs(1);

/// Models that sleep and wake beside each other, each with a client of its own.
const MODELS: [&str; 4] = ["first", "second", "third", "fourth"];

pub fn run(_: &Setup, _: &[String]) -> anyhow::Result<()> {
    let stage = Stage::new("cycles")?;
    let scale = json!({"scale": {
        "idleTimeout": "2s", "scaleDownDelay": "1s", "panicWindow": "1s", "stableWindow": "6s",
    }});
    let image = stage.image("1.0.0")?;
    let mut callers = Vec::new();
    let pods = Pods::watch(&stage.cluster.kubectl, &stage.space.name, "wick.dev/model")?;
    for name in MODELS {
        stage.apply_as(name, &image, &scale)?;
    }
    let begun = Instant::now();
    for name in MODELS {
        callers.push(Caller::start(stage.address_of(name)?, 1, gap));
    }
    let mut told = 0;
    loop {
        thread::sleep(LOOK);
        // The first pod of each is no return.
        let cycles = pods.count_after(begun).saturating_sub(MODELS.len());
        if cycles > told {
            eprintln!("scale: cycle {cycles} of {CYCLES}");
            told = cycles;
        }
        if cycles >= CYCLES {
            break;
        }
        ensure!(begun.elapsed() < LIMIT, "{cycles} cycles in {LIMIT:?}");
    }
    let mut all = Tally::default();
    for caller in callers {
        all.add(caller.stop()?);
    }
    for lost in &all.lost {
        eprintln!("scale: lost {lost}");
    }
    let detail = json!({
        "machine": machine()?,
        "cycles": told,
        "answered": all.answered,
        "slowest_s": round(all.slowest.as_secs_f64()),
        "minutes": round(begun.elapsed().as_secs_f64() / 60.0),
    });
    bar::report(LOST, all.lost.len() as f64, "requests", detail);
    stage.end()
}

/// From 10 to 26 s, spread evenly by the golden ratio. A Model is asleep after about 18 s, so calls come
/// at each moment of its way down, and after it.
fn gap(count: u32) -> Duration {
    let part = (f64::from(count) * 0.618_034) % 1.0;
    Duration::from_secs_f64(10.0 + 16.0 * part)
}
