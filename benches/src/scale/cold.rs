//! A request to a Model that has no pod, its image being on the node: until its answer, and where
//! the time went. Beside it MLServer with the same model in a pod of runc's.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use wick_e2e::filetype::{PYTHON, classify};
use wick_e2e::stage::{SETTLED, Stage};
use wick_e2e::wait::wait;

use crate::bar;
use crate::serving::machine;
use crate::setup::Setup;
use crate::stats::{median, quantile, round};

use super::peer::Peer;
use super::pods::Pods;

pub const P50: &str = "cold-first-answer-p50-s";
pub const P99: &str = "cold-first-answer-p99-s";

/// Models that take turns: while one is asked, the others fall asleep again.
const MODELS: [&str; 4] = ["first", "second", "third", "fourth"];

/// Cold starts of each, after one that warms caches.
const ROUNDS: usize = 25;

/// Starts of the peer, which takes seconds for each.
const PEER_STARTS: usize = 7;

/// How long the machine rests before a start.
const REST: Duration = Duration::from_millis(500);

/// Sleeps as soon as it may.
const SOON: &str = "1s";

/// One cold start, in seconds from the request on.
struct Start {
    /// Until the pod exists: the activator holds, the operator decides, Kubernetes makes it.
    made: f64,
    placed: f64,
    /// Until its sandbox runs and the API server says so.
    addressed: f64,
    answered: f64,
}

pub fn run(setup: &Setup, _: &[String]) -> anyhow::Result<()> {
    let stage = Stage::new("cold")?;
    let image = stage.image("1.0.0")?;
    let scale = json!({"scale": {
        "idleTimeout": SOON, "scaleDownDelay": SOON, "panicWindow": SOON, "stableWindow": "6s",
    }});
    for name in MODELS {
        stage.apply_as(name, &image, &scale)?;
        stage.address_of(name)?;
    }
    for name in MODELS {
        ensure!(classify(stage.address_of(name)?, PYTHON)? == "python");
    }
    let before = phases(&stage)?;
    let mut starts = Vec::new();
    for number in 1..=ROUNDS {
        eprintln!("scale: cold starts, round {number} of {ROUNDS}");
        for name in MODELS {
            starts.push(start(&stage, name)?);
        }
    }
    let activator = since(&before, &phases(&stage)?);
    let mut peer = Vec::new();
    let mlserver = Peer::new(setup, &stage)?;
    for number in 0..=PEER_STARTS {
        eprintln!("scale: cold start {number} of {PEER_STARTS} of MLServer");
        let took = mlserver.start()?;
        // The first warms caches and is not counted.
        if number > 0 {
            peer.push(took);
        }
    }
    let detail = detail(&starts, &activator, &peer)?;
    let answers: Vec<f64> = starts.iter().map(|start| start.answered).collect();
    bar::report(P50, median(&answers), "s", detail.clone());
    bar::report(P99, quantile(&answers, 0.99), "s", detail);
    stage.end()
}

fn start(stage: &Stage, name: &str) -> anyhow::Result<Start> {
    let addr = stage.address_of(name)?;
    stage.until_gone_of(name)?;
    let selector = format!("wick.dev/model={name}");
    let pods = Pods::watch(&stage.cluster.kubectl, &stage.space.name, &selector)?;
    thread::sleep(REST);
    let asked = Instant::now();
    let label = classify(addr, PYTHON)?;
    let answered = asked.elapsed();
    ensure!(label == "python", "{name} says {label}");
    // What the watch tells comes by another way than the answer.
    let steps = wait("the pod's steps", SETTLED, || {
        Ok(pods.made_after(asked).filter(|steps| steps.addressed.is_some()))
    })?;
    let until = |at: Instant| at.duration_since(asked).as_secs_f64();
    let placed = steps.placed.context("a pod without a node has an address")?;
    let (addressed, _) = steps.addressed.context("no address")?;
    let start = Start {
        made: until(steps.made),
        placed: until(placed),
        addressed: until(addressed),
        answered: answered.as_secs_f64(),
    };
    eprintln!("scale: {name}: {:.0} ms", start.answered * 1e3);
    Ok(start)
}

fn detail(starts: &[Start], activator: &Value, peer: &[f64]) -> anyhow::Result<Value> {
    let of = |value: fn(&Start) -> f64| {
        let values: Vec<f64> = starts.iter().map(value).collect();
        json!({"p50": round(median(&values)), "p99": round(quantile(&values, 0.99))})
    };
    Ok(json!({
        "machine": machine()?,
        "starts": starts.len(),
        "until_s": {
            "pod_made": of(|start| start.made),
            "pod_placed": of(|start| start.placed),
            "sandbox_address": of(|start| start.addressed),
            "answered": of(|start| start.answered),
        },
        "activator_mean_s": activator,
        "mlserver_runc": {
            "starts": peer.len(),
            "p50": round(median(peer)),
            "most": round(peer.iter().copied().fold(0.0, f64::max)),
        },
    }))
}

/// Sum and count of each phase that the activators have seen, over all Models.
fn phases(stage: &Stage) -> anyhow::Result<Value> {
    let mut sums = json!({});
    for text in stage.activator_metrics()? {
        for line in text.lines() {
            let Some(rest) = line.strip_prefix("wick_activator_cold_start_seconds_") else {
                continue;
            };
            let Some((kind, rest)) = rest.split_once('{') else { continue };
            let phase = rest.split_once("phase=\"").and_then(|(_, rest)| rest.split_once('"'));
            let value = line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
            if let (Some((phase, _)), Some(value), "sum" | "count") = (phase, value, kind) {
                let so_far = sums[phase][kind].as_f64().unwrap_or(0.0);
                sums[phase][kind] = (so_far + value).into();
            }
        }
    }
    Ok(sums)
}

/// The means of what came after `before`.
fn since(before: &Value, after: &Value) -> Value {
    let mut means = json!({});
    for (phase, sums) in after.as_object().into_iter().flatten() {
        let more = |kind: &str| {
            sums[kind].as_f64().unwrap_or(0.0) - before[phase][kind].as_f64().unwrap_or(0.0)
        };
        means[phase] = round(more("sum") / more("count").max(1.0)).into();
    }
    means
}
