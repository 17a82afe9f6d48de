//! Bars of the fleet: how long a plan takes, how that grows, whether promises hold in many simulated
//! runs, how soon a thousand agents at a real broker are where they should be, and what one of them
//! costs that has nothing to do.

mod broker;
mod hub;
mod idle;
mod links;

use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use serde_json::json;
use wick_fleet::plan::{
    Inventory, Observations, Place, Plan, Policy, Rollout, Seen, Zone, lint, plan,
};
use wick_fleet::wire::{Channel, Desired, Topic, seal};
use wick_fleet::{Generation, Model, Moment, SiteName};
use wick_package::Digest;
use wick_package::signature::PrivateKey;

use crate::bar::report;
use crate::stats::{median, round};

/// The child that plans for one number of sites.
pub const SCALE: &str = "fleet-scale";

/// Times that one plan is made; the bar is the median.
const TIMES: usize = 5;

/// Sites of the first bar, and between which growth is measured.
const SITES: usize = 10_000;
const GROWTH: [usize; 3] = [1_000, 10_000, 100_000];

/// Runs that are simulated.
const SEEDS: u64 = 10_000;

const MIB: u64 = 1 << 20;

type Bench = fn() -> anyhow::Result<()>;

const BENCHES: [(&[&str], Bench); 6] = [
    (&["plan-10k-s"], plan_10k),
    (&["growth-exponent"], growth),
    (&["sim-broken"], sim),
    (&[hub::RSS], hub::hub),
    (&[links::CONVERGE], links::converge),
    (&[idle::RSS, idle::CPU, idle::BYTES], idle::idle),
];

/// Run all benchmarks, or those that report one of the bars `only`.
pub fn run(only: &[String]) -> anyhow::Result<()> {
    let known: Vec<&str> = BENCHES.iter().flat_map(|(bars, _)| bars.iter().copied()).collect();
    for bar in only {
        ensure!(known.contains(&bar.as_str()), "no bar `{bar}`; there is: {known:?}");
    }
    for (bars, bench) in BENCHES {
        if only.is_empty() || only.iter().any(|wanted| bars.contains(&wanted.as_str())) {
            eprintln!("== {}", bars.join(", "));
            bench()?;
        }
    }
    Ok(())
}

/// A fleet that serves one version and is to have another.
struct Fleet {
    policy: Policy,
    inventory: Inventory,
    seen: Observations,
    plan: Plan,
    key: PrivateKey,
}

fn model(version: u8) -> Model {
    Model {
        name: "filetype".parse().expect("it is a label"),
        image: "registry.example/vision/filetype".to_owned(),
        digest: Digest::of(&[version]),
        bytes: 4 * MIB,
        memory: 64 * MIB,
    }
}

// === impl Fleet ===

impl Fleet {
    fn new(sites: usize) -> anyhow::Result<Self> {
        let now = Moment::from_millis(1_700_000_000_000);
        let name = |at: usize| format!("site-{at:06}").parse::<SiteName>();
        let place = || Place {
            labels: [("region".to_owned(), "north".to_owned())].into(),
            zone: Zone::utc(),
            memory: 1024 * MIB,
            disk: 1024 * MIB,
        };
        let seen = |generation, settled| Seen {
            online: true,
            since: now,
            generation,
            wanted: generation,
            settled,
            ..Seen::default()
        };
        let names: Vec<_> = (0..sites).map(name).collect::<Result<_, _>>()?;
        let all = |seen: Seen| names.iter().map(|name| (name.clone(), seen.clone())).collect();
        let inventory = names.iter().map(|name| (name.clone(), place())).collect();
        let first = Rollout::new("first".parse()?, vec![model(1)]);
        let mut policy = Policy { rollouts: vec![first] };
        let told = all(seen(Generation(0), false));
        let plan_of = |policy: &Policy, seen: &Observations, before: Plan| {
            plan(policy, &inventory, seen, before, &[], now)
        };
        let before = plan_of(&policy, &told, Plan::default());
        let there: Observations = all(seen(Generation(1), true));
        let before = plan_of(&policy, &there, before);
        policy.rollouts.push(Rollout::new("second".parse()?, vec![model(2)]));
        let key = PrivateKey::from_seed(&[1; 32]);
        Ok(Self { policy, inventory, seen: there, plan: before, key })
    }

    /// Plan, lint, sign and serialise a change of every site. Seconds, and bytes of messages.
    fn change(&self) -> anyhow::Result<(f64, usize)> {
        let now = Moment::from_millis(1_700_000_060_000);
        let start = Instant::now();
        let after = plan(&self.policy, &self.inventory, &self.seen, self.plan.clone(), &[], now);
        let problems = lint(&self.policy, &self.inventory, &self.plan, &after);
        ensure!(problems.is_empty(), "the plan is bad: {}", problems[0]);
        let mut messages = Vec::with_capacity(self.inventory.len());
        for (name, target) in after.changes(&self.plan) {
            let models = target.models.clone();
            let desired = Desired { models, rollout: target.rollout.clone() };
            let topic = Topic::new(name.clone(), Channel::Desired);
            messages.push(seal(&topic, target.generation, &desired, &self.key, &[])?);
        }
        let seconds = start.elapsed().as_secs_f64();
        ensure!(messages.len() == self.inventory.len(), "{} sites changed", messages.len());
        Ok((seconds, messages.iter().map(Vec::len).sum()))
    }
}

fn plan_10k() -> anyhow::Result<()> {
    let fleet = Fleet::new(SITES)?;
    let turns = (0..TIMES).map(|_| fleet.change()).collect::<anyhow::Result<Vec<_>>>()?;
    let seconds: Vec<_> = turns.iter().map(|(seconds, _)| *seconds).collect();
    let bytes = turns.first().map_or(0, |(_, bytes)| *bytes);
    let detail = json!({"sites": SITES, "message_bytes": bytes / SITES, "turns": TIMES});
    report("plan-10k-s", median(&seconds), "s", detail);
    Ok(())
}

/// The child: the time of a change, and the memory of all that it needs.
pub fn scale(args: &[String]) -> anyhow::Result<()> {
    let sites = args.first().context("how many sites?")?.parse()?;
    let before = memory("VmRSS")?;
    let fleet = Fleet::new(sites)?;
    let turns = (0..TIMES).map(|_| fleet.change()).collect::<anyhow::Result<Vec<_>>>()?;
    let seconds: Vec<_> = turns.iter().map(|(seconds, _)| *seconds).collect();
    let memory = memory("VmHWM")?.saturating_sub(before);
    println!("{}", json!({"seconds": median(&seconds), "kib": memory}));
    Ok(())
}

/// A line of the kernel's about this process, in KiB.
fn memory(name: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with(name)).context("no such line")?;
    Ok(line.split_whitespace().nth(1).context("no number")?.parse()?)
}

fn growth() -> anyhow::Result<()> {
    let mut points = Vec::new();
    for sites in GROWTH {
        let mut child = Command::new(std::env::current_exe()?);
        let output = child.args([SCALE, &sites.to_string()]).output().context("start a child")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let point: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let number = |key: &str| point[key].as_f64().context("a child says no number");
        points.push((sites as f64, number("seconds")?, number("kib")?));
        eprintln!("{sites} sites: {point}");
    }
    let (first, last) = (points[0], points[points.len() - 1]);
    let exponent = |from: f64, to: f64| (to / from).ln() / (last.0 / first.0).ln();
    let (time, memory) = (exponent(first.1, last.1), exponent(first.2, last.2));
    let detail = json!({
        "time": round(time),
        "memory": round(memory),
        "sites": GROWTH,
        "seconds": points.iter().map(|point| round(point.1)).collect::<Vec<_>>(),
        "mib": points.iter().map(|point| round(point.2 / 1024.0)).collect::<Vec<_>>(),
    });
    report("growth-exponent", time.max(memory), "exponent", detail);
    Ok(())
}

fn sim() -> anyhow::Result<()> {
    let (mut broken, mut events, mut crashes) = (Vec::new(), 0, 0);
    for seed in 0..SEEDS {
        let outcome = wick_sim::run(seed, false);
        (events, crashes) = (events + outcome.events, crashes + outcome.crashes);
        if let Some(what) = outcome.broken {
            eprintln!("seed {seed}: {what}");
            broken.push(seed);
        }
    }
    let detail = json!({"seeds": SEEDS, "events": events, "crashes": crashes, "broken": broken});
    report("sim-broken", broken.len() as f64, "seeds", detail);
    Ok(())
}
