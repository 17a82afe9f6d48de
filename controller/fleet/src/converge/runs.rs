//! The versions that run on a site. Each counts with its memory until it is known to be gone.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::converge::Version;
use crate::model::Model;
use crate::time::Moment;

/// Where a running version is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Run {
    Starting,
    Ready,
    Draining,
    Stopping,
}

/// One running version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) memory: u64,
    pub(super) run: Run,
    pub(super) since: Moment,
    /// Whether it may have traffic, so that it is drained before it is stopped.
    pub(super) routed: bool,
}

/// All of them, and which are not started again before when.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Runs {
    pub(super) entries: BTreeMap<Version, Entry>,
    pub(super) lame: BTreeMap<Version, (Moment, u32)>,
}

// === impl Runs ===

impl Runs {
    pub(super) fn of_boot(running: Vec<Model>, now: Moment) -> Self {
        let entry = |model: &Model| Entry {
            memory: model.memory,
            run: Run::Ready,
            since: now,
            routed: true,
        };
        let entries = running.iter().map(|model| (Version::from(model), entry(model))).collect();
        Self { entries, lame: BTreeMap::new() }
    }

    pub(super) fn memory(&self) -> u64 {
        self.entries.values().fold(0, |sum: u64, entry| sum.saturating_add(entry.memory))
    }

    pub(super) fn run(&self, version: &Version) -> Option<Run> {
        self.entries.get(version).map(|entry| entry.run)
    }

    pub(super) fn are_ready(&self, models: &[Model]) -> bool {
        models.iter().all(|model| self.run(&Version::from(model)) == Some(Run::Ready))
    }

    /// Whether a version may be started: it is gone, has room, and did not just fail.
    pub(super) fn may_start(&self, model: &Model, memory: u64, now: Moment) -> bool {
        let version = Version::from(model);
        let lame = self.lame.get(&version).is_some_and(|(until, _)| *until > now);
        let room = self.memory().checked_add(model.memory).is_some_and(|sum| sum <= memory);
        !self.entries.contains_key(&version) && !lame && room
    }

    pub(super) fn start(&mut self, model: &Model, routed: bool, now: Moment) {
        let entry = Entry { memory: model.memory, run: Run::Starting, since: now, routed };
        self.entries.insert(Version::from(model), entry);
    }

    pub(super) fn set(&mut self, version: &Version, run: Run, now: Moment) {
        if let Some(entry) = self.entries.get_mut(version) {
            (entry.run, entry.since) = (run, now);
        }
    }

    /// It started; only what was starting is ready by that.
    pub(super) fn ready(&mut self, version: &Version, now: Moment) {
        if self.run(version) == Some(Run::Starting) {
            self.set(version, Run::Ready, now);
        }
    }

    /// It is gone.
    pub(super) fn gone(&mut self, version: &Version) {
        self.entries.remove(version);
    }

    /// How often it failed in a row by now.
    pub(super) fn failed(&mut self, version: &Version) -> u32 {
        let count = self.lame.get(version).map_or(0, |(_, count)| *count);
        count.saturating_add(1)
    }

    /// When waiting for one of them is over.
    pub(super) fn due(&self, wait: impl Fn(Run) -> Option<Duration>) -> Option<Moment> {
        let entries =
            self.entries.values().filter_map(|entry| Some(entry.since + wait(entry.run)?));
        entries.min()
    }
}
