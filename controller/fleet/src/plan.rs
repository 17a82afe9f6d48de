//! Who gets which models when: one generation for each site, from the policy, the inventory, what was
//! seen, and the plan before.
//!
//! ```text
//!  wave 0 ─ gate ─▶ wave 1 ─ gate ─▶ … ─▶ Finished ─▶ those that were offline catch up
//!     │ fails                                        (each at its own time and window)
//!     └──▶ RolledBack: what moved gets a new generation with what it had before; or Paused
//! ```
//!
//! A plan is data: [`plan()`] makes the next from the last, [`lint()`] looks for what must not be published,
//! and `Display` prints it, which is the dry run. Offline is not failed: nobody moves while it is
//! offline, and nobody waits for it longer than its rollout says.

mod decide;
mod gate;
mod lint;
mod rollout;
mod show;
mod window;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::model::Model;
use crate::names::{Generation, RolloutName, SiteName};
use crate::time::Moment;
use crate::wire::{Observed, State};
pub use decide::plan;
pub use lint::{Problem, lint};
pub use rollout::{Gate, MAX_WAVES, OnFailure, Policy, Rollout, Share, Size, Wave};
pub use window::{Window, WindowError, Zone, ZoneError};

/// What is known of a site, whatever it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub labels: BTreeMap<String, String>,
    pub zone: Zone,
    pub memory: u64,
    pub disk: u64,
}

pub type Inventory = BTreeMap<SiteName, Place>;

/// What was heard of a site.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    pub online: bool,
    /// Since when it is online, or is not, by the hub's clock.
    pub since: Moment,
    /// What has the traffic there.
    pub generation: Generation,
    /// What it is on its way to.
    pub wanted: Generation,
    /// Whether it is there.
    pub settled: bool,
    /// The code of what it failed by, on its way.
    pub failed: Option<String>,
    /// Requests that were served by `generation`.
    pub traffic: Traffic,
}

/// How requests went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    pub requests: u64,
    pub errors: u64,
    pub p99_us: u64,
}

pub type Observations = BTreeMap<SiteName, Seen>;

/// What somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Nobody else moves; who moved stays.
    Pause(RolloutName),
    Resume(RolloutName),
    /// Who moved goes back.
    Abort(RolloutName),
    /// Again: those that failed where it was paused, from the first wave where it was rolled back.
    Retry(RolloutName),
    /// The gate of this wave, counted from zero, may open.
    Approve(RolloutName, usize),
}

/// What every site is to have, and where rollouts are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Plan {
    pub made: Moment,
    /// Those that left the inventory too: a generation never begins again.
    pub sites: BTreeMap<SiteName, Target>,
    pub rollouts: BTreeMap<RolloutName, Progress>,
}

/// What one site is to have. A generation is never changed: another has the next number.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Target {
    pub generation: Generation,
    pub models: Vec<Model>,
    /// Whose change it was last.
    pub rollout: Option<RolloutName>,
    /// What it was told before, as far as it may still serve that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub past: Vec<Past>,
}

/// An earlier generation of a site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    pub generation: Generation,
    pub models: Vec<Model>,
}

/// Where a rollout is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Of two that want one site, the one with the lower number has it first.
    pub turn: u64,
    pub phase: Phase,
    /// Since when it is in this phase, or in this wave.
    pub since: Moment,
    pub wave: usize,
    /// Since when all sites of the wave have an end.
    pub baking: Option<Moment>,
    pub approved: BTreeSet<usize>,
    /// Why it was paused or rolled back.
    pub reason: Option<String>,
    pub sites: BTreeMap<SiteName, Mark>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    Running,
    Paused,
    Aborted,
    RolledBack,
    Finished,
}

/// A site within a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    pub wave: usize,
    pub stage: Stage,
    /// What it served, where it has moved and may go back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Vec<Model>>,
}

/// Where a site is within a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    Planned,
    /// Its wave is open, and it may not move yet.
    Waits(Wait),
    /// It was told.
    Moving(Moment),
    Done,
    Failed(String),
    /// It was offline for too long; nobody waits for it, and it catches up.
    Skipped,
    /// It went back.
    Undone,
}

/// Why a site may not move yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wait {
    /// Another rollout came first.
    Rollout(RolloutName),
    /// Its maintenance window opens then, or never.
    Window(Option<Moment>),
    /// As many as may be unavailable are.
    Unavailable,
    Offline(Moment),
    /// It is still on its way to what it was told before.
    Settling,
}

// === impl Plan ===

impl Plan {
    /// The sites that have to be told something else than by the plan before.
    pub fn changes<'a>(
        &'a self,
        before: &'a Self,
    ) -> impl Iterator<Item = (&'a SiteName, &'a Target)> {
        self.sites.iter().filter(|(name, target)| {
            before.sites.get(*name).map(|old| old.generation).unwrap_or_default()
                != target.generation
        })
    }
}

// === impl Target ===

impl Target {
    /// Tell it something else.
    fn change(&mut self, models: Vec<Model>, rollout: &RolloutName) {
        let models = std::mem::replace(&mut self.models, models);
        self.past.push(Past { generation: self.generation, models });
        self.generation = self.generation.next();
        self.rollout = Some(rollout.clone());
    }

    /// Forget what a site has left behind.
    fn forget(&mut self, seen: &Seen) {
        if seen.generation == self.generation {
            self.past.clear();
        } else {
            self.past.retain(|past| past.generation >= seen.generation);
        }
    }

    /// What a site serves that stands still: it is where it was told to be, or stuck on the way.
    fn served(&self, seen: &Seen) -> Option<&[Model]> {
        if seen.generation == self.generation && (seen.settled || self.generation.0 == 0) {
            return Some(&self.models);
        }
        let stuck = seen.failed.is_some() && seen.wanted == self.generation;
        let past = self.past.iter().find(|past| past.generation == seen.generation);
        past.filter(|_| stuck).map(|past| past.models.as_slice())
    }
}

// === impl Seen ===

/// Reasons of a site that are the version's fault or the site's, not the network's.
const FAULTS: [&str; 5] = ["not-ready", "no-memory", "no-disk", "wrong-bytes", "died"];

impl Seen {
    /// Take in what a site says of itself. Whoever hears it passes over reports that are older than
    /// the last.
    pub fn hear(&mut self, generation: Generation, observed: &Observed) {
        if self.generation != generation {
            self.traffic = Traffic::default();
        }
        self.generation = generation;
        self.wanted = observed.wanted;
        self.settled = observed.state.is_settled() && observed.wanted == generation;
        let fault = observed.reason.as_deref().filter(|reason| FAULTS.contains(reason));
        self.failed = fault.filter(|_| observed.state == State::Waiting).map(str::to_owned);
    }
}

// === impl Phase ===

impl Phase {
    /// Whether it may still go back, so that nobody else may change its sites.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }
}

// === impl Mark ===

impl Mark {
    /// Whether it was told, and the end is not known or is bad.
    pub fn is_unavailable(&self) -> bool {
        self.before.is_some()
            && matches!(self.stage, Stage::Moving(_) | Stage::Failed(_) | Stage::Skipped)
    }

    /// Whether its wave waits for it.
    pub fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Planned | Stage::Waits(_) | Stage::Moving(_))
    }
}
