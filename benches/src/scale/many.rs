//! One operator with thousands of Models: what it has in memory, and how soon it acts on a change.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::bail;
use parking_lot::Mutex;
use serde_json::{Value, json};
use wick_e2e::kubectl::Kubectl;
use wick_e2e::stage::Stage;
use wick_e2e::wait::wait;

use crate::bar;
use crate::serving::{cpu, machine};
use crate::setup::Setup;
use crate::stats::{median, quantile, round};

use super::watch::Watch;

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
struct Models {
    seen: Arc<Mutex<BTreeMap<String, Seen>>>,
    _watch: Watch,
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
    let alone = cpu::status_mib(operator, "VmRSS")?;
    let models = Models::watch(&stage.cluster.kubectl, &stage.space.name)?;
    let begun = Instant::now();
    for first in (0..MODELS).step_by(AT_ONCE) {
        let items: Vec<Value> = (first..first + AT_ONCE).map(|n| model(n, &image)).collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
        stage.space.apply(&list.to_string())?;
        eprintln!("scale: {} of {MODELS} Models", first + AT_ONCE);
    }
    let created = begun.elapsed();
    wait("the operator's first look at all Models", LIMIT, || {
        let starting = models.seen.lock().values().filter(|seen| seen.ready == "Starting").count();
        Ok((starting == MODELS).then_some(()))
    })?;
    eprintln!("scale: all Models are starting after {:.0?}", begun.elapsed());
    let mut took = Vec::new();
    for number in 0..CHANGES {
        // Spread over all of them.
        took.push(change(&stage, &models, number * (MODELS / CHANGES), number)?);
    }
    let peak = cpu::status_mib(operator, "VmHWM")?;
    let detail = json!({
        "machine": machine()?,
        "models": MODELS,
        "rss_without_models_mib": round(alone),
        "rss_mib": round(cpu::status_mib(operator, "VmRSS")?),
        "rss_peak_mib": round(peak),
        "created_after_s": round(created.as_secs_f64()),
        "acted_on_after_s": round(begun.elapsed().as_secs_f64()),
        "change_p50_s": round(median(&took)),
        "changes": CHANGES,
    });
    bar::report(RSS, peak, "MiB", detail.clone());
    bar::report(CHANGE, quantile(&took, 1.0), "s", detail);
    drop(models);
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
fn change(stage: &Stage, models: &Models, number: usize, value: usize) -> anyhow::Result<f64> {
    let (name, patch) = (name(number), json!({"spec": {"scale": {"maxReplicas": 11 + value}}}));
    let before = models.of(&name).generation;
    let asked = Instant::now();
    let object = format!("model/{name}");
    let patch = patch.to_string();
    stage.space.run(&["patch", &object, "--type=merge", "-p", &patch])?;
    while asked.elapsed() < LIMIT {
        let seen = models.of(&name);
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

// === impl Models ===

impl Models {
    fn watch(kubectl: &Kubectl, namespace: &str) -> anyhow::Result<Self> {
        let seen = Arc::new(Mutex::new(BTreeMap::new()));
        let noted = Arc::clone(&seen);
        let words = ["models", "-o", COLUMNS];
        let watch = Watch::start(kubectl, namespace, &words, move |line, _| {
            let mut columns = line.split('|').map(str::to_owned);
            let mut next = || columns.next().unwrap_or_default();
            let (name, generation, observed, ready) = (next(), next(), next(), next());
            let number = |text: String| text.parse().unwrap_or(0);
            let seen = Seen { generation: number(generation), observed: number(observed), ready };
            noted.lock().insert(name, seen);
        })?;
        Ok(Self { seen, _watch: watch })
    }

    fn of(&self, name: &str) -> Seen {
        self.seen.lock().get(name).cloned().unwrap_or_default()
    }
}
