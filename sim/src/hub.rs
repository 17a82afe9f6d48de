//! The hub: the real planner, with a disk that survives and a memory that does not.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use wick_fleet::plan::{
    Gate, Inventory, Observations, Order, Place, Plan, Policy, Rollout, Share, Size, Wave, Zone,
    lint, plan,
};
use wick_fleet::wire::{self, Channel, Desired, KeyRing, Observed, Topic};
use wick_fleet::{Model, Moment, SiteName};
use wick_package::signature::{PrivateKey, PublicKey};

use crate::machine::{DISK, MEMORY, is_bad, model};

/// When rollouts are added, in milliseconds.
const BEGIN: [u64; 3] = [0, 8 * 60_000, 16 * 60_000];

pub(crate) struct Hub {
    pub(crate) key: PrivateKey,
    pub(crate) up: bool,
    /// On its disk.
    pub(crate) plan: Plan,
    policy: Policy,
    later: Vec<(u64, Rollout)>,
    inventory: Inventory,
    rings: BTreeMap<SiteName, KeyRing>,
    pub(crate) seen: Observations,
    sequences: BTreeMap<SiteName, u64>,
    /// After a start it says everything again.
    pub(crate) fresh: bool,
}

/// Messages to publish, or what is wrong.
pub(crate) type Said = Result<Vec<(Topic, Vec<u8>)>, String>;

// === impl Hub ===

impl Hub {
    pub(crate) fn new(sites: &[(SiteName, PublicKey)], rng: &mut Rng) -> Self {
        let place =
            || Place { labels: BTreeMap::new(), zone: Zone::utc(), memory: MEMORY, disk: DISK };
        let ring = |key: &PublicKey| KeyRing::new(1, vec![key.clone()]).expect("one key is a ring");
        let later = BEGIN.into_iter().enumerate();
        Self {
            key: PrivateKey::from_seed(&[1; 32]),
            up: true,
            plan: Plan::default(),
            policy: Policy::default(),
            later: later.map(|(at, time)| (time, rollout(at, rng))).collect(),
            inventory: sites.iter().map(|(name, _)| (name.clone(), place())).collect(),
            rings: sites.iter().map(|(name, key)| (name.clone(), ring(key))).collect(),
            seen: Observations::new(),
            sequences: BTreeMap::new(),
            fresh: true,
        }
    }

    /// Its memory is lost; its disk is not.
    pub(crate) fn crash(&mut self) {
        self.up = false;
        self.seen.clear();
        self.sequences.clear();
    }

    pub(crate) fn start(&mut self) {
        (self.up, self.fresh) = (true, true);
    }

    pub(crate) fn presence(&mut self, site: &SiteName, online: bool, now: Moment) {
        let seen = self.seen.entry(site.clone()).or_default();
        if seen.online != online {
            (seen.online, seen.since) = (online, now);
        }
    }

    pub(crate) fn observed(&mut self, topic: &Topic, bytes: &[u8]) -> Result<(), String> {
        let Some(ring) = self.rings.get(&topic.site) else { return Ok(()) };
        let opened = wire::open::<Observed>(topic, bytes, ring)
            .map_err(|refusal| format!("a report of {} is refused: {refusal}", topic.site))?;
        let last = self.sequences.entry(topic.site.clone()).or_default();
        if opened.body.sequence > *last {
            *last = opened.body.sequence;
            let seen = self.seen.entry(topic.site.clone()).or_default();
            seen.hear(opened.generation, &opened.body);
        }
        Ok(())
    }

    /// The next plan is on its disk; what it says of sites is still to be published.
    pub(crate) fn tick(&mut self, orders: &[Order], now: Moment, since: u64) -> Said {
        while self.later.first().is_some_and(|(time, _)| *time <= since) {
            self.policy.rollouts.push(self.later.remove(0).1);
        }
        let before = self.plan.clone();
        let after = plan(&self.policy, &self.inventory, &self.seen, before.clone(), orders, now);
        if let Some(problem) = lint(&self.policy, &self.inventory, &before, &after).first() {
            return Err(format!("the plan is bad: {problem}"));
        }
        let all = std::mem::take(&mut self.fresh);
        let changed: Vec<SiteName> = match all {
            true => after.sites.keys().cloned().collect(),
            false => after.changes(&before).map(|(name, _)| name.clone()).collect(),
        };
        self.plan = after;
        changed.into_iter().filter_map(|name| self.say(name).transpose()).collect()
    }

    fn say(&self, name: SiteName) -> Result<Option<(Topic, Vec<u8>)>, String> {
        let Some(target) = self.plan.sites.get(&name).filter(|target| target.generation.0 > 0)
        else {
            return Ok(None);
        };
        let topic = Topic::new(name, Channel::Desired);
        let desired = Desired { models: target.models.clone(), rollout: target.rollout.clone() };
        let bytes = wire::seal(&topic, target.generation, &desired, &self.key, &[]);
        Ok(Some((topic, bytes.map_err(|refusal| refusal.to_string())?)))
    }

    /// Whether no rollout is on its way any more.
    pub(crate) fn is_done(&self) -> bool {
        use wick_fleet::plan::Phase;
        self.later.is_empty() && self.plan.rollouts.values().all(|r| r.phase != Phase::Running)
    }

    pub(crate) fn names(&self) -> Vec<wick_fleet::RolloutName> {
        self.policy.rollouts.iter().map(|rollout| rollout.name.clone()).collect()
    }
}

fn rollout(at: usize, rng: &mut Rng) -> Rollout {
    let models: Vec<Model> = match at {
        0 => vec![model("filetype", 1), model("ocr", 1)],
        _ => vec![model(rng.choice(["filetype", "ocr"]).unwrap_or("ocr"), rng.u8(2..6))],
    };
    let bake = Duration::from_secs(rng.u64(0..60));
    let gate = Gate { success: rng.u8(50..=100), bake, ..Gate::default() };
    let count = if models.iter().any(is_bad) { 1 } else { rng.usize(1..4) };
    let name = format!("change-{at}").parse().expect("it is a label");
    Rollout {
        waves: vec![Wave { size: Size::Count(count), gate }],
        max_unavailable: Share::Count(rng.usize(1..4)),
        settle: Duration::from_secs(300),
        offline: Duration::from_secs(rng.u64(60..600)),
        ..Rollout::new(name, models)
    }
}
