//! A pull beside curl: the same blobs, to the same disk, with a SHA-256 each, in turns.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::json;

use super::part::{self, Part};
use crate::bar;
use crate::setup::Setup;
use crate::stats::{median, round};

/// The image: 500 MB in two files of weights.
const WEIGHTS: [u64; 2] = [400_000_000, 100_000_000];

/// Turns of each.
const ROUNDS: usize = 5;

/// How often the memory of the pull is read.
const LOOK: Duration = Duration::from_millis(2);

pub fn pull(setup: &Setup, part: &Part) -> anyhow::Result<()> {
    part.push(setup, "large:1", "code", &WEIGHTS)?;
    let image = part.image("large:1");
    let seen = part::wick(setup, &["inspect", &image, "--remote", "--plain-http"])?;
    let blobs = seen["layers"].as_array().context("the image has no layers")?;
    let blobs: Vec<String> =
        blobs.iter().filter_map(|layer| layer["digest"].as_str()).map(str::to_owned).collect();
    let (mut ours, mut curls, mut peaks) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let (time, peak) = pull_once(setup, &image)?;
        let curl = curl_once(setup, part, &blobs)?;
        eprintln!("round {round}: wick {time:.2} s ({peak:.1} MiB), curl {curl:.2} s");
        ours.push(time);
        curls.push(curl);
        peaks.push(peak);
    }
    let rate = |time: f64| round(WEIGHTS.iter().sum::<u64>() as f64 / 1e6 / time);
    let detail = json!({
        "wick_mb_s": rate(median(&ours)), "curl_mb_s": rate(median(&curls)),
        "rounds": ROUNDS, "blobs": blobs.len(),
    });
    bar::report("pull-vs-curl", median(&curls) / median(&ours), "ratio", detail);
    let peak = peaks.iter().copied().fold(0.0, f64::max);
    bar::report("pull-rss-mib", peak, "MiB", json!({ "rounds": ROUNDS }));
    Ok(())
}

/// Seconds of a pull into an empty store, and the most memory that it had, in MiB.
fn pull_once(setup: &Setup, image: &str) -> anyhow::Result<(f64, f64)> {
    let store = setup.scratch.path().join("pulled");
    let text = store.to_str().context("a path that is no text")?;
    let args = ["pull", image, "--plain-http", "--store", text];
    let begun = Instant::now();
    let mut child = part::command(setup, &args).spawn()?;
    let mut peak = 0.0_f64;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        // The kernel keeps the peak, and forgets it only with the process.
        peak = peak.max(high_water(child.id()).unwrap_or_default());
        std::thread::sleep(LOOK);
    };
    let time = begun.elapsed().as_secs_f64();
    ensure!(status.success(), "the pull failed: {status}");
    ensure!(peak > 0.0, "its memory could not be read");
    fs::remove_dir_all(store)?;
    Ok((time, peak))
}

fn high_water(pid: u32) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

/// Seconds of curl for all blobs, each to the disk and through sha256sum, made to last as a
/// pull is.
fn curl_once(setup: &Setup, part: &Part, blobs: &[String]) -> anyhow::Result<f64> {
    let folder = setup.folder("curled")?;
    let begun = Instant::now();
    for blob in blobs {
        let hex = blob.trim_start_matches("sha256:");
        let url = format!("http://{}/v2/bench/large/blobs/{blob}", part.addr);
        let got = curl(&folder, &url, hex)?;
        ensure!(got == hex, "curl got {got} instead of {hex}");
    }
    let time = begun.elapsed().as_secs_f64();
    fs::remove_dir_all(folder)?;
    Ok(time)
}

fn curl(folder: &Path, url: &str, name: &str) -> anyhow::Result<String> {
    let script = format!("set -e; curl -sSf '{url}' | tee {name} | sha256sum; sync {name}");
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).current_dir(folder).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = shell.output()?;
    ensure!(output.status.success(), "curl failed: {}", output.status);
    let text = String::from_utf8(output.stdout)?;
    Ok(text.split_whitespace().next().unwrap_or_default().to_owned())
}
