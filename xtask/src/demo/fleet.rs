//! `cargo xtask demo fleet`: a whole fleet on one machine, with everything that a real one has: a
//! broker with certificates, a registry, a policy in git, the hub, and agents that serve a real
//! model while somebody asks every one of them all the time.
//!
//! ```text
//!  git ──▶ hub ──▶ mosquitto ──▶ 20 agents ◀── requests
//!                 registry ────────┘
//!
//!  version 1 everywhere ─▶ a commit: version 2, in waves ─▶ a commit: a broken version, rolled back
//! ```

mod parts;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use super::timed;
use crate::house::House;
use crate::tools;
use crate::{bench, http, mqtt, registry, setup};
use parts::{Agent, Hub, Stage};

/// Agents, unless `--sites` says otherwise.
const SITES: usize = 20;

/// Longest until a rollout has ended. Most of it are twenty loads of a model on a few cores.
const LIMIT: Duration = Duration::from_secs(300);

/// Between two looks at a rollout, and between two requests to one site.
const LOOK: Duration = Duration::from_millis(200);

/// What is asked: a piece of Python, whose type is `python`.
const TEXT: &str = "import os\n\nprint(os.name)\n";

/// Requests that were answered well, and those that were not.
#[derive(Default)]
struct Tally {
    over: AtomicBool,
    answered: AtomicUsize,
    lost: AtomicUsize,
}

/// `args` is what follows `demo fleet`.
pub fn run(house: &House, args: &[String]) -> anyhow::Result<()> {
    let sites = match args {
        [] => SITES,
        [flag, count] if flag == "--sites" => count.parse().context("--sites NUMBER")?,
        _ => bail!("usage: cargo xtask demo fleet [--sites NUMBER]"),
    };
    timed("set up: models, ONNX Runtime, guests", || setup::run(house))?;
    timed("built wick", || bench::build(house))?;
    play(house, sites).map(drop)
}

/// The whole play; how many requests were answered. An error if one was lost.
pub fn play(house: &House, sites: usize) -> anyhow::Result<usize> {
    // The last one's is kept until the next, for whoever wants to see what was said.
    let folder = house.target.join("demo/fleet");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    fs::create_dir_all(&folder)?;
    let programs = (mqtt::mosquitto(house)?, registry::executable(house)?);
    let stage = Stage { house, folder: &folder };
    let registry = timed("a registry", || stage.registry(&programs.1))?;
    let images = timed("three versions packed and pushed", || versions(&stage, registry.addr))?;
    let policy = stage.policy()?;
    let hub =
        timed("a hub, and a broker with its certificates", || stage.hub(&programs.0, &policy))?;
    let what = format!("{sites} sites enrolled, each with a key of its own");
    let agents = timed(&what, || agents(&stage, &hub, registry.addr, sites))?;
    commit(&policy, "filetype-1", &images[0], "[{}]")?;
    timed("version 1 is on all sites", || hub.until(&stage, "filetype-1", "finished", LIMIT))?;

    let tally = Arc::new(Tally::default());
    let callers: Vec<_> = agents.iter().map(|agent| call(agent.addr, Arc::clone(&tally))).collect();
    let waves = "[{take: 1, gate: {success: 100%}}, {take: 25%, gate: {success: 100%}}, {}]";
    commit(&policy, "filetype-2", &images[1], waves)?;
    timed("version 2: one site, a quarter, all", || {
        hub.until(&stage, "filetype-2", "finished", LIMIT)
    })?;
    commit(&policy, "filetype-3", &images[2], waves)?;
    timed("a broken version 3: rolled back", || {
        hub.until(&stage, "filetype-3", "rolled-back", LIMIT)
    })?;
    timed("every site serves version 2 again", || settled(&stage, &hub, sites))?;
    tally.over.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.join().map_err(|_| anyhow::anyhow!("a client has panicked"))?;
    }
    let (answered, lost) =
        (tally.answered.load(Ordering::Relaxed), tally.lost.load(Ordering::Relaxed));
    println!("\n{}", hub.fleet(&stage, &["rollouts"], false)?.trim_end());
    println!("\n{answered} requests were answered meanwhile, {lost} were lost");
    drop(agents);
    ensure!(lost == 0, "{lost} requests were lost");
    Ok(answered)
}

/// Version 1, version 2, and one whose model is cut off in the middle.
fn versions(stage: &Stage<'_>, registry: SocketAddr) -> anyhow::Result<Vec<String>> {
    let from = stage.house.examples().join("filetype");
    let mut images = Vec::new();
    for version in ["1.0.0", "2.0.0", "3.0.0"] {
        let package = stage.folder.join(format!("filetype-{version}"));
        copy(&from, &package, version)?;
        if version == "3.0.0" {
            let model = package.join("model.onnx");
            let whole = fs::read(&model).context("read the model")?;
            fs::write(&model, &whole[..whole.len() / 2])?;
        }
        let tar = package.with_extension("tar");
        tools::output(stage.wick().arg("pack").arg(&package).arg("--out").arg(&tar))?;
        let name = format!("{registry}/models/filetype");
        let mut push = stage.wick();
        push.args(["push", "--plain-http", "--output", "json"]).arg(&tar);
        let pushed = tools::output(push.arg(format!("{name}:{version}")))?;
        let pushed: Value = serde_json::from_str(&pushed).context("what `wick push` prints")?;
        let digest = pushed["digest"].as_str().context("no digest of what was pushed")?;
        images.push(format!("{name}@{digest}"));
    }
    Ok(images)
}

/// A package's files, as another version.
fn copy(from: &Path, to: &Path, version: &str) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    let manifest = fs::read_to_string(to.join("wick.toml"))?;
    let lines = manifest.lines().map(|line| match line.starts_with("version = ") {
        true => format!("version = \"{version}\"\n"),
        false => format!("{line}\n"),
    });
    Ok(fs::write(to.join("wick.toml"), lines.collect::<String>())?)
}

fn agents(
    stage: &Stage<'_>,
    hub: &Hub,
    registry: SocketAddr,
    sites: usize,
) -> anyhow::Result<Vec<Agent>> {
    (1..=sites).map(|number| stage.agent(hub, registry, &format!("site-{number}"))).collect()
}

/// Commit a rollout, and tell the hub as a webhook would.
fn commit(policy: &Policy, name: &str, image: &str, waves: &str) -> anyhow::Result<()> {
    let text = format!(
        "apiVersion: wick.dev/v1alpha1\nkind: Rollout\nmetadata:\n  name: {name}\nspec:\n  \
         models:\n  - name: filetype\n    image: {image}\n    disk: 16Mi\n    memory: 64Mi\n  \
         waves: {waves}\n"
    );
    policy.commit(&format!("rollouts/{name}.yaml"), &text, name)
}

/// Ask one site until all is over.
fn call(addr: SocketAddr, tally: Arc<Tally>) -> thread::JoinHandle<()> {
    let input = json!({
        "name": "bytes", "datatype": "UINT8", "shape": [TEXT.len()], "data": TEXT.as_bytes(),
    });
    let body = json!({"inputs": [input]}).to_string();
    thread::spawn(move || {
        while !tally.over.load(Ordering::Relaxed) {
            let answer = http::send(addr, "/v2/models/filetype/infer", Some(&body));
            let right = answer.is_ok_and(|answer| {
                answer.status == 200 && String::from_utf8_lossy(&answer.body).contains("\"python\"")
            });
            let count = if right { &tally.answered } else { &tally.lost };
            count.fetch_add(1, Ordering::Relaxed);
            thread::sleep(LOOK);
        }
    })
}

/// Wait until every site serves what it is to have.
fn settled(stage: &Stage<'_>, hub: &Hub, sites: usize) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let status: Value = serde_json::from_str(&hub.fleet(stage, &["status"], true)?)?;
        if status["sites"]["converged"].as_u64() == u64::try_from(sites).ok() {
            return Ok(());
        }
        ensure!(begun.elapsed() < LIMIT, "not all sites serve what they should: {status}");
        thread::sleep(LOOK);
    }
}

/// The repository of the policy, as a checkout.
pub struct Policy(PathBuf);

// === impl Policy ===

impl Policy {
    pub fn new(folder: PathBuf) -> anyhow::Result<Self> {
        fs::create_dir_all(&folder)?;
        let policy = Self(folder);
        policy.git(&["init", "--quiet", "--initial-branch", "main"])?;
        policy.commit("README.md", "The fleet's policy.\n", "a policy")?;
        Ok(policy)
    }

    pub fn url(&self) -> String {
        format!("file://{}", self.0.display())
    }

    fn commit(&self, file: &str, text: &str, message: &str) -> anyhow::Result<()> {
        let path = self.0.join(file);
        fs::create_dir_all(path.parent().context("a file in a folder")?)?;
        fs::write(path, text)?;
        self.git(&["add", "--all"])?;
        let who = ["-c", "user.name=demo", "-c", "user.email=demo@example"];
        self.git(&[&who[..], &["commit", "--quiet", "--message", message]].concat())
    }

    fn git(&self, args: &[&str]) -> anyhow::Result<()> {
        tools::output(Command::new("git").arg("-C").arg(&self.0).args(args)).map(drop)
    }
}
