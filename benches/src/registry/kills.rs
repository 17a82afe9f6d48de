//! Kills at random instants of pulls and of garbage collection, and a look at the store after each.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::part::{self, Part};
use crate::bar;
use crate::setup::Setup;

/// Kills, as the bar has it.
const KILLS: usize = 1000;

/// Weights of the image that stays, and of the one that comes and goes.
const STAYS: u64 = 1_000_000;
const COMES: u64 = 6_000_000;

pub fn kills(setup: &Setup, part: &Part) -> anyhow::Result<()> {
    part.push(setup, "stays:1", "code", &[STAYS])?;
    part.push(setup, "comes:1", "code", &[COMES])?;
    let (stays, comes) = (part.image("stays:1"), part.image("comes:1"));
    let store = setup.scratch.path().join("killed-store");
    let store = store.to_str().context("a path that is no text")?;
    let pull = ["pull", &comes, "--plain-http", "--store", store];
    part::wick(setup, &["pull", &stays, "--plain-http", "--store", store])?;
    let begun = Instant::now();
    part::wick(setup, &pull)?;
    let whole = begun.elapsed();
    part::wick(setup, &["rm", &comes, "--store", store])?;
    let (mut corrupt, mut landed) = (0, 0);
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for kill in 0..KILLS {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // Up to a little after the end of a pull.
        let part_of = (state % 1200) as u32;
        let collect = ["gc", "--grace", "0s", "--store", store];
        let mut children = [start(setup, &pull)?, start(setup, &collect)?];
        std::thread::sleep(whole * part_of / 1000);
        for child in &mut children {
            // It may have ended by itself.
            drop(child.kill());
            child.wait()?;
        }
        let check = part::wick(setup, &["images", "--check", "--store", store]);
        let images = part::wick(setup, &["images", "--store", store])?;
        let faults = match check {
            Ok(check) => check["faults"].clone(),
            Err(error) => error.to_string().into(),
        };
        if faults != json!([]) || !has(&images, &stays) {
            corrupt += 1;
            eprintln!("kill {kill}: {faults}; {images}");
        }
        if has(&images, &comes) {
            landed += 1;
            part::wick(setup, &["rm", &comes, "--store", store])?;
        }
    }
    // A run in which no pull or every pull came to its end tells nothing.
    ensure!(landed > 0 && landed < KILLS, "{landed} of {KILLS} pulls were done before the kill");
    let detail = json!({
        "kills": KILLS, "pulls_done": landed,
        "pull_ms": Duration::as_millis(&whole) as u64,
    });
    bar::report("kills-corrupt", f64::from(corrupt), "stores", detail);
    Ok(())
}

fn start(setup: &Setup, args: &[&str]) -> anyhow::Result<Child> {
    let mut command = part::command(setup, args);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("start wick")
}

fn has(images: &Value, name: &str) -> bool {
    let images = images["images"].as_array().into_iter().flatten();
    let whole = |image: &Value| image["complete"] == json!(true);
    images.filter(|image| whole(image)).any(|image| image["names"] == json!([name]))
}
