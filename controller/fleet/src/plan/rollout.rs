//! What somebody wrote: which sites get what, in which waves, behind which gates.

use std::collections::BTreeMap;
use std::time::Duration;

use wick_package::PackageName;

use crate::model::Model;
use crate::names::RolloutName;
use crate::plan::{Place, Window};

/// Most waves of a rollout.
pub const MAX_WAVES: usize = 64;

/// All rollouts. Of two that begin at once and want one site, the first of the list has it first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    pub rollouts: Vec<Rollout>,
}

/// One change for many sites. What it changes does not change: another change has another name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    pub name: RolloutName,
    /// Labels that a site must have; all sites if there are none.
    pub select: BTreeMap<String, String>,
    /// Added, or in place of those with the same name.
    pub models: Vec<Model>,
    pub remove: Vec<PackageName>,
    /// The last takes whoever is left, whether or not it says so.
    pub waves: Vec<Wave>,
    /// How many sites may be on their way or broken at once.
    pub max_unavailable: Share,
    pub window: Option<Window>,
    /// How long an online site may take.
    pub settle: Duration,
    /// How long a wave waits for a site that is offline.
    pub offline: Duration,
    pub on_failure: OnFailure,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wave {
    pub size: Size,
    pub gate: Gate,
}

/// Which sites a wave takes of those that are left, in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Size {
    Count(usize),
    /// Of all sites of the rollout, rounded up.
    Percent(u8),
    Label {
        key: String,
        value: String,
    },
    Rest,
}

/// What must hold after a wave before the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    /// Percent of the sites that have an end.
    pub success: u8,
    /// Most failed requests in 10,000 of all sites that have moved.
    pub errors: Option<u32>,
    /// The median over those sites of their 99th percentile, at most.
    pub p99_us: Option<u64>,
    /// How long it must hold.
    pub bake: Duration,
    /// Whether somebody must say yes.
    pub approval: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    Count(usize),
    Percent(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    RollBack,
    Pause,
}

// === impl Rollout ===

impl Rollout {
    /// A rollout of these models to all sites at once, with everything else as it is by default.
    pub fn new(name: RolloutName, models: Vec<Model>) -> Self {
        Self {
            name,
            select: BTreeMap::new(),
            models,
            remove: Vec::new(),
            waves: vec![Wave { size: Size::Rest, gate: Gate::default() }],
            max_unavailable: Share::Percent(100),
            window: None,
            settle: Duration::from_secs(30 * 60),
            offline: Duration::from_secs(3600),
            on_failure: OnFailure::RollBack,
        }
    }

    pub fn selects(&self, place: &Place) -> bool {
        self.select.iter().all(|(key, value)| place.labels.get(key) == Some(value))
    }

    /// What a site with these models has after it.
    pub fn applied(&self, models: &[Model]) -> Vec<Model> {
        let stays = |model: &&Model| {
            !self.remove.contains(&model.name)
                && !self.models.iter().any(|new| new.name == model.name)
        };
        let mut after: Vec<_> = models.iter().filter(stays).chain(&self.models).cloned().collect();
        after.sort_by(|a, b| a.name.cmp(&b.name));
        after
    }

    /// The gate of a wave; whoever is left has the last one's, or the plainest.
    pub fn gate(&self, wave: usize) -> Gate {
        self.waves.get(wave).map(|wave| wave.gate.clone()).unwrap_or_default()
    }

    /// How many waves there are, the one of whoever is left included.
    pub fn wave_count(&self) -> usize {
        let rest = self.waves.last().is_some_and(|wave| wave.size == Size::Rest);
        self.waves.len() + usize::from(!rest)
    }
}

// === impl Share ===

impl Share {
    /// Of so many, and at least one: with none nothing would ever move.
    pub fn of(self, total: usize) -> usize {
        let count = match self {
            Self::Count(count) => count,
            Self::Percent(percent) => total * usize::from(percent) / 100,
        };
        count.max(1)
    }
}

// === impl Gate ===

impl Default for Gate {
    fn default() -> Self {
        Self { success: 100, errors: None, p99_us: None, bake: Duration::ZERO, approval: false }
    }
}
