//! What is decided over, as people and programs are shown it. Pure.

use std::collections::BTreeMap;

use serde::Serialize;
use wick_fleet::plan::{Mark, Phase, Progress, Stage};
use wick_fleet::wire::{Served, State as SiteState};
use wick_fleet::{Model, Moment, RolloutName, SiteName};

use crate::shared::State;

/// How many sites are how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Totals {
    pub enrolled: usize,
    pub online: usize,
    /// They serve what they are to have.
    pub converged: usize,
    /// They tried to, and failed.
    pub failed: usize,
    pub revoked: usize,
}

#[derive(Debug, Clone, Serialize)]
pub struct SiteShown {
    pub name: SiteName,
    pub labels: BTreeMap<String, String>,
    pub memory: u64,
    pub disk: u64,
    pub revoked: bool,
    pub online: bool,
    /// Since when it is online, or is not.
    pub since: Option<Moment>,
    /// What it is to have.
    pub generation: u64,
    pub models: Vec<Model>,
    pub rollout: Option<RolloutName>,
    /// What has the traffic there.
    pub serving: u64,
    pub served: Vec<Served>,
    pub state: Option<SiteState>,
    pub reason: Option<String>,
    pub attempts: u32,
    /// What it refused last, and why.
    pub refused: Option<String>,
    /// The last message in its name that the hub refused, and how many there were.
    pub distrusted: Option<(String, u64)>,
    /// When its certificate ends, in seconds since 1970.
    pub certificate: Option<u64>,
}

#[derive(Debug, Clone, Serialize)]
pub struct RolloutShown {
    pub name: RolloutName,
    pub phase: Phase,
    /// Counted from one.
    pub wave: usize,
    pub waves: usize,
    pub since: Moment,
    pub reason: Option<String>,
    /// The gate waits for somebody's yes.
    pub wants_approval: bool,
    pub sites: Counts,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub marks: BTreeMap<SiteName, MarkShown>,
}

/// How many sites of a rollout are at which stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    pub planned: usize,
    pub waiting: usize,
    pub moving: usize,
    pub done: usize,
    pub failed: usize,
    pub skipped: usize,
    pub undone: usize,
}

#[derive(Debug, Clone, Serialize)]
pub struct MarkShown {
    pub wave: usize,
    pub stage: String,
}

pub fn site(state: &State, name: &SiteName) -> Option<SiteShown> {
    let member = state.members.get(name)?;
    let place = state.inventory.get(name);
    let target = state.plan.sites.get(name);
    let seen = state.heard.seen().get(name);
    let voice = state.heard.voice(name);
    let report = voice.and_then(|voice| voice.report.as_ref());
    let observed = report.map(|(_, observed)| observed);
    Some(SiteShown {
        name: name.clone(),
        labels: place.map_or_else(|| member.place.labels.clone(), |place| place.labels.clone()),
        memory: place.map_or(member.place.memory, |place| place.memory),
        disk: place.map_or(member.place.disk, |place| place.disk),
        revoked: member.revoked.is_some(),
        online: seen.is_some_and(|seen| seen.online),
        since: seen.map(|seen| seen.since),
        generation: target.map_or(0, |target| target.generation.0),
        models: target.map(|target| target.models.clone()).unwrap_or_default(),
        rollout: target.and_then(|target| target.rollout.clone()),
        serving: report.map_or(0, |(generation, _)| generation.0),
        served: observed.map(|observed| observed.models.clone()).unwrap_or_default(),
        state: observed.map(|observed| observed.state),
        reason: observed.and_then(|observed| observed.reason.clone()),
        attempts: observed.map_or(0, |observed| observed.attempts),
        refused: observed
            .and_then(|observed| observed.refused.as_ref())
            .map(|refused| refused.text.clone()),
        distrusted: voice.and_then(|voice| voice.refused.clone()),
        certificate: member.certificates.last().map(|certificate| certificate.not_after),
    })
}

/// How many sites say that they believe this list of keys.
pub fn believers(state: &State, serial: u64) -> usize {
    let members = state.members.iter().filter(|(_, member)| member.revoked.is_none());
    let reports = members.filter_map(|(name, _)| state.heard.voice(name)?.report.as_ref());
    reports.filter(|(_, observed)| observed.keys == serial).count()
}

/// All of them, without their sites.
pub fn rollouts(state: &State) -> Vec<RolloutShown> {
    let shown = state.plan.rollouts.iter().map(|(name, progress)| summary(state, name, progress));
    shown.collect()
}

/// One of them, without its sites.
pub fn rollout_summary(state: &State, name: &RolloutName) -> Option<RolloutShown> {
    Some(summary(state, name, state.plan.rollouts.get(name)?))
}

/// One of them, with its sites.
pub fn rollout(state: &State, name: &RolloutName) -> Option<RolloutShown> {
    let progress = state.plan.rollouts.get(name)?;
    let mut shown = summary(state, name, progress);
    let marks = progress.sites.iter().map(|(site, mark)| {
        let Mark { wave, stage, .. } = mark;
        (site.clone(), MarkShown { wave: wave + 1, stage: stage.to_string() })
    });
    shown.marks = marks.collect();
    Some(shown)
}

fn summary(state: &State, name: &RolloutName, progress: &Progress) -> RolloutShown {
    let policy = state.documents.as_ref().map(|documents| &documents.policy);
    let rollout =
        policy.and_then(|policy| policy.rollouts.iter().find(|rollout| rollout.name == *name));
    let approval = rollout.is_some_and(|rollout| rollout.gate(progress.wave).approval);
    let wants = approval && progress.phase.is_open() && !progress.approved.contains(&progress.wave);
    RolloutShown {
        name: name.clone(),
        phase: progress.phase,
        wave: progress.wave + 1,
        waves: rollout.map_or(0, wick_fleet::plan::Rollout::wave_count),
        since: progress.since,
        reason: progress.reason.clone(),
        wants_approval: wants,
        sites: Counts::of(progress),
        marks: BTreeMap::new(),
    }
}

// === impl SiteShown ===

impl SiteShown {
    /// Whether it serves what it is to have, and goes nowhere else.
    pub fn is_converged(&self) -> bool {
        let settled = self.state.is_some_and(SiteState::is_settled);
        self.serving == self.generation && (settled || self.generation == 0)
    }
}

// === impl Totals ===

impl Totals {
    pub fn of(state: &State) -> Self {
        let mut totals = Self::default();
        for (name, member) in &state.members {
            if member.revoked.is_some() {
                totals.revoked += 1;
                continue;
            }
            totals.enrolled += 1;
            let Some(seen) = state.heard.seen().get(name) else { continue };
            let wanted =
                state.plan.sites.get(name).map(|target| target.generation).unwrap_or_default();
            totals.online += usize::from(seen.online);
            let there = seen.generation == wanted && (seen.settled || wanted.0 == 0);
            totals.converged += usize::from(there);
            totals.failed += usize::from(seen.failed.is_some());
        }
        totals
    }
}

// === impl Counts ===

impl Counts {
    pub fn total(&self) -> usize {
        let Self { planned, waiting, moving, done, failed, skipped, undone } = self;
        planned + waiting + moving + done + failed + skipped + undone
    }

    fn of(progress: &Progress) -> Self {
        let mut counts = Self::default();
        for mark in progress.sites.values() {
            let count = match mark.stage {
                Stage::Planned => &mut counts.planned,
                Stage::Waits(_) => &mut counts.waiting,
                Stage::Moving(_) => &mut counts.moving,
                Stage::Done => &mut counts.done,
                Stage::Failed(_) => &mut counts.failed,
                Stage::Skipped => &mut counts.skipped,
                Stage::Undone => &mut counts.undone,
            };
            *count += 1;
        }
        counts
    }
}
