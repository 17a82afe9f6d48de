//! Pods in a running cluster's containerd: how fast they start, what they take, how fast
//! they answer.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::bar;
use crate::http::Prepared;
use crate::runtime::load;
use crate::setup::Setup;
use crate::stats::{median, quantile, round};

use super::cri::{self, Case, Started};
use super::images::{self, Images};
use super::parts::Parts;

/// Pods of each kind, one after another; the first of each warms caches.
const ROUNDS: usize = 16;

/// Pods of each kind at once.
const PODS: usize = 20;

/// Rounds of load, time of each, and connections.
const LOAD_ROUNDS: usize = 5;
const LOAD_TIME: Duration = Duration::from_secs(3);
const CONNECTIONS: usize = 16;

/// From nothing to the first correct answer.
pub fn start(setup: &Setup, parts: &Parts) -> anyhow::Result<()> {
    let scratch = setup.folder("cri")?;
    let images = images::import(setup, parts)?;
    let cases = [native(&images), tiny("wick", images.tiny)];
    let started = cri::rounds(parts, &scratch, &cases, ROUNDS)?;
    let of = |name: &str| -> Vec<&Started> {
        started.iter().filter(|pod| pod.case == name).skip(1).collect()
    };
    let (runc, wick) = (of("runc"), of("wick"));
    let total = |pods: &[&Started]| median(&values(pods, Started::total_ms));
    let detail = json!({"runc": summary(&runc), "wick": summary(&wick)});
    bar::report("cri-vs-runc", total(&wick) / total(&runc), "ratio", detail.clone());
    let answers = values(&wick, |pod| pod.first_answer_ms);
    bar::report("first-answer-ms", median(&answers), "ms", detail);
    Ok(())
}

/// Proportional memory of all processes of a pod: shim, pause, worker.
pub fn memory(setup: &Setup, parts: &Parts) -> anyhow::Result<()> {
    let scratch = setup.folder("cri-memory")?;
    let images = images::import(setup, parts)?;
    let kinds = [
        native(&images),
        tiny("wick", images.tiny),
        tiny("wick-onnxruntime", images.tiny_onnxruntime),
        web("wick-web", images.web),
    ];
    let mut detail = serde_json::Map::new();
    // One kind at a time: pods of another kind share pages and would flatter.
    for case in &kinds {
        let held = cri::hold(parts, &scratch, std::slice::from_ref(case), PODS)?;
        std::thread::sleep(Duration::from_secs(2));
        let pods: Vec<BTreeMap<String, f64>> =
            held.pods.iter().map(processes).collect::<anyhow::Result<_>>()?;
        let sums: Vec<f64> = pods.iter().map(|pod| pod.values().sum()).collect();
        detail.insert(
            case.name.to_owned(),
            json!({
                "mib": round(median(&sums)),
                "one_pod_by_process_mib": pods.last(),
            }),
        );
        held.release()?;
    }
    let value = detail["wick"]["mib"].as_f64().context("no figure")?;
    bar::report("memory-per-pod-mib", value, "MiB", detail.into());
    Ok(())
}

/// A `wasi:http` guest beside a Go server under runc.
pub fn http(setup: &Setup, parts: &Parts) -> anyhow::Result<()> {
    let scratch = setup.folder("cri-http")?;
    let images = images::import(setup, parts)?;
    let kinds = [native(&images), web("wick", images.web_reused), web("wick-fresh", images.web)];
    let held = cri::hold(parts, &scratch, &kinds, 1)?;
    let mut rates: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for index in 0..=LOAD_ROUNDS {
        for pod in &held.pods {
            let request = Prepared::get("/count");
            let load = load::drive_plain(pod.addr(), &request, CONNECTIONS, LOAD_TIME)?;
            if index > 0 {
                rates.entry(pod.case.clone()).or_default().push(load.per_second);
            }
        }
    }
    held.release()?;
    let rate = |name: &str| median(rates.get(name).map_or(&[], Vec::as_slice));
    let detail = json!({
        "connections": CONNECTIONS,
        "native_per_second": round(rate("runc")),
        "reused_per_second": round(rate("wick")),
        "fresh_per_second": round(rate("wick-fresh")),
        "fresh_ratio": round(rate("wick-fresh") / rate("runc")),
    });
    bar::report("http-vs-native", rate("wick") / rate("runc"), "ratio", detail);
    Ok(())
}

fn native(images: &Images) -> Case {
    Case {
        name: "runc",
        handler: "runc",
        image: images.native.to_owned(),
        command: &["/native", "serve"],
        path: "/",
        body: String::new(),
        wants: "1",
    }
}

/// The smallest network: sixteen ones in, sixteen numbers out.
fn tiny(name: &'static str, image: &str) -> Case {
    let body = json!({"inputs": [{
        "name": "x", "datatype": "FP32", "shape": [1, 16], "data": vec![1.0; 16],
    }]});
    Case {
        name,
        handler: "wick",
        image: image.to_owned(),
        command: &["/wick.toml"],
        path: "/v2/models/small/infer",
        body: body.to_string(),
        wants: "\"outputs\"",
    }
}

fn web(name: &'static str, image: &str) -> Case {
    Case {
        name,
        handler: "wick",
        image: image.to_owned(),
        command: &["/wick.toml"],
        path: "/count",
        body: String::new(),
        wants: "1",
    }
}

/// Proportional set size of each process of a pod, in MiB, by its name.
fn processes(pod: &Started) -> anyhow::Result<BTreeMap<String, f64>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let folder = entry?.path();
        let read = |file: &str| fs::read_to_string(folder.join(file)).unwrap_or_default();
        let (groups, line) = (read("cgroup"), read("cmdline"));
        let is_shim = line.contains("containerd-shim-") && line.contains(&pod.sandbox);
        if !is_shim && !groups.contains(&pod.container) && !groups.contains(&pod.sandbox) {
            continue;
        }
        let rollup = read("smaps_rollup");
        let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        let kib = pss.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
        // A process without memory of its own, or one that has just ended.
        let Some(kib) = kib else { continue };
        *found.entry(read("comm").trim().to_owned()).or_insert(0.0) += round(kib / 1024.0);
    }
    anyhow::ensure!(found.len() >= 2, "pod {} has too few processes: {found:?}", pod.sandbox);
    Ok(found)
}

fn values(pods: &[&Started], of: impl Fn(&Started) -> f64) -> Vec<f64> {
    pods.iter().map(|pod| of(pod)).collect()
}

fn summary(pods: &[&Started]) -> Value {
    let of = |value: fn(&Started) -> f64| round(median(&values(pods, value)));
    json!({
        "total_ms": of(Started::total_ms),
        "total_p90_ms": round(quantile(&values(pods, Started::total_ms), 0.9)),
        "sandbox_ms": of(|pod| pod.sandbox_ms),
        "create_ms": of(|pod| pod.create_ms),
        "start_ms": of(|pod| pod.start_ms),
        "first_answer_ms": of(|pod| pod.first_answer_ms),
    })
}
