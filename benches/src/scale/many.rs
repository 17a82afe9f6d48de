//! One operator with thousands of Models: what it has in memory, and how soon it acts on a change.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use parking_lot::Mutex;
use serde_json::{Value, json};
use wick_e2e::kubectl::Kubectl;
use wick_e2e::stage::Stage;
use wick_e2e::wait::wait;

use crate::bar;
use crate::serving::machine;
use crate::setup::Setup;
use crate::stats::{median, quantile, round};

pub const RSS: &str = "operator-rss-mib";
pub const CHANGE: &str = "operator-change-s";

/// Models, and how many are created by one call of kubectl.
const MODELS: usize = 3000;
const AT_ONCE: usize = 250;

/// Changes that are timed, one after the other.
const CHANGES: usize = 40;

/// Longest until the operator has acted on all new Models. Most of it is the API server's work.
const LIMIT: Duration = Duration::from_secs(1500);

/// What is printed of a Model at each change.
const COLUMNS: &str = "jsonpath={.metadata.name}|{.metadata.generation}|\
                       {.status.observedGeneration}|{.status.conditions[?(@.type==\"Ready\")].reason}\
                       {\"\\n\"}";

const LOOK: Duration = Duration::from_millis(2);

/// The Models' generations, as the API server tells whoever watches them.
struct Watch {
    child: Child,
    seen: Arc<Mutex<BTreeMap<String, Seen>>>,
}

#[derive(Clone, Default)]
struct Seen {
    generation: u64,
    /// The newest that the operator has acted on.
    observed: u64,
    ready: String,
}

pub fn run(_: &Setup, _: &[String]) -> anyhow::Result<()> {
    let stage = Stage::new("many")?;
    let image = stage.image("1.0.0")?;
    let operator = operator()?;
    let alone = memory(operator, "VmRSS")?;
    let watch = Watch::start(&stage.cluster.kubectl, &stage.space.name)?;
    let begun = Instant::now();
    for first in (0..MODELS).step_by(AT_ONCE) {
        let models: Vec<Value> = (first..first + AT_ONCE).map(|n| model(n, &image)).collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": models});
        stage.space.apply(&list.to_string())?;
        eprintln!("scale: {} of {MODELS} Models", first + AT_ONCE);
    }
    let created = begun.elapsed();
    wait("the operator's first look at all Models", LIMIT, || {
        let starting = watch.seen.lock().values().filter(|seen| seen.ready == "Starting").count();
        Ok((starting == MODELS).then_some(()))
    })?;
    eprintln!("scale: all Models are starting after {:.0?}", begun.elapsed());
    let mut took = Vec::new();
    for number in 0..CHANGES {
        // Spread over all of them.
        took.push(change(&stage, &watch, number * (MODELS / CHANGES), number)?);
    }
    let peak = memory(operator, "VmHWM")?;
    let detail = json!({
        "machine": machine()?,
        "models": MODELS,
        "rss_without_models_mib": round(alone),
        "rss_mib": round(memory(operator, "VmRSS")?),
        "rss_peak_mib": round(peak),
        "created_after_s": round(created.as_secs_f64()),
        "acted_on_after_s": round(begun.elapsed().as_secs_f64()),
        "change_p50_s": round(median(&took)),
        "changes": CHANGES,
    });
    bar::report(RSS, peak, "MiB", detail.clone());
    bar::report(CHANGE, quantile(&took, 1.0), "s", detail);
    drop(watch);
    stage.end()
}

fn name(number: usize) -> String {
    format!("model-{number}")
}

fn model(number: usize, image: &str) -> Value {
    json!({
        "apiVersion": "wick.dev/v1alpha1", "kind": "Model",
        "metadata": {"name": name(number)},
        // A new Model starts a pod to see whether it works. No node takes these: the operator is what is
        // measured, and a node has room for a hundred.
        "spec": {
            "package": {"image": image},
            "scheduling": {"nodeSelector": {"wick.dev/bench": "nowhere"}},
        },
    })
}

/// From asking for a change of a Model until its status says that the operator has made it so.
fn change(stage: &Stage, watch: &Watch, number: usize, value: usize) -> anyhow::Result<f64> {
    let (name, patch) = (name(number), json!({"spec": {"scale": {"maxReplicas": 11 + value}}}));
    let before = watch.of(&name).generation;
    let asked = Instant::now();
    let object = format!("model/{name}");
    let patch = patch.to_string();
    stage.space.run(&["patch", &object, "--type=merge", "-p", &patch])?;
    while asked.elapsed() < LIMIT {
        let seen = watch.of(&name);
        if seen.generation > before && seen.observed == seen.generation {
            let took = asked.elapsed().as_secs_f64();
            eprintln!("scale: a change of {name} took {took:.3} s");
            return Ok(took);
        }
        thread::sleep(LOOK);
    }
    bail!("the operator did not act on {name} in {LIMIT:?}")
}

/// The operator's process: the only one of this machine that runs `wick operator run` in a pod.
fn operator() -> anyhow::Result<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        // It may have ended by now.
        let line = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        let cgroup = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        let words: Vec<&str> = line.split('\0').collect();
        let ours = words.windows(2).any(|pair| pair == ["operator", "run"]);
        if ours && cgroup.contains("kubepods") {
            found.push(pid);
        }
    }
    match found[..] {
        [pid] => Ok(pid),
        _ => bail!("there is not one operator in pods, but {found:?}"),
    }
}

/// A figure of the kernel's about a process, in MiB.
fn memory(pid: u32, field: &str) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))
        .context("the operator has ended: look at its events")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.trim_start_matches(':').split_whitespace().next());
    Ok(kib.context("no such figure")?.parse::<f64>()? / 1024.0)
}

// === impl Watch ===

impl Watch {
    fn start(kubectl: &Kubectl, namespace: &str) -> anyhow::Result<Self> {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(kubectl.kubeconfig());
        command.args(["--namespace", namespace, "get", "models", "--watch", "-o", COLUMNS]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().context("watch Models with kubectl")?;
        let stdout = child.stdout.take().context("kubectl has no standard output")?;
        let seen = Arc::new(Mutex::new(BTreeMap::new()));
        let noted = Arc::clone(&seen);
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let mut columns = line.split('|').map(str::to_owned);
                let mut next = || columns.next().unwrap_or_default();
                let (name, generation, observed, ready) = (next(), next(), next(), next());
                let number = |text: String| text.parse().unwrap_or(0);
                let seen =
                    Seen { generation: number(generation), observed: number(observed), ready };
                noted.lock().insert(name, seen);
            }
        });
        Ok(Self { child, seen })
    }

    fn of(&self, name: &str) -> Seen {
        self.seen.lock().get(name).cloned().unwrap_or_default()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Nothing useful can be done if it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
