//! The next plan from the last one.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Model, check_models, disk_of, memory_of};
use crate::names::{RolloutName, SiteName};
use crate::plan::gate::{Tally, judge};
use crate::plan::{
    Inventory, Mark, Observations, OnFailure, Order, Phase, Place, Plan, Policy, Progress, Rollout,
    Seen, Size, Stage, Target, Traffic, Wait,
};
use crate::time::Moment;

/// What a decision looks at.
struct Turn<'a> {
    inventory: &'a Inventory,
    seen: &'a Observations,
    now: Moment,
    /// Who may change a site now, where somebody may already.
    claims: BTreeMap<SiteName, RolloutName>,
}

/// What every site is to have from now on. The same arguments give the same plan.
#[must_use]
pub fn plan(
    policy: &Policy,
    inventory: &Inventory,
    seen: &Observations,
    previous: Plan,
    orders: &[Order],
    now: Moment,
) -> Plan {
    let mut plan = previous;
    plan.made = now;
    for site in inventory.keys() {
        if !plan.sites.contains_key(site) {
            plan.sites.insert(site.clone(), Target::default());
        }
    }
    for (name, target) in plan.sites.iter_mut().filter(|(_, target)| !target.past.is_empty()) {
        if let Some(seen) = seen.get(name) {
            target.forget(seen);
        }
    }
    let known: BTreeSet<_> = policy.rollouts.iter().map(|rollout| &rollout.name).collect();
    plan.rollouts.retain(|name, _| known.contains(name));
    let mut turn = Turn { inventory, seen, now, claims: BTreeMap::new() };
    let mut next = plan.rollouts.values().map(|progress| progress.turn + 1).max().unwrap_or(0);
    let mut ours = Vec::new();
    for rollout in &policy.rollouts {
        let progress = plan.rollouts.remove(&rollout.name);
        let mut progress = progress.unwrap_or_else(|| turn.begin(rollout, &mut next));
        for order in orders {
            turn.obey(order, rollout, &mut progress, &mut plan.sites);
        }
        if orders.iter().any(|order| *order == Order::Retry(rollout.name.clone())) {
            turn.retry(rollout, &mut progress, &mut plan.sites, &mut next);
        }
        ours.push((rollout, progress));
    }
    // By when they began: a strict order, so no two ever wait for each other.
    ours.sort_by_key(|(_, progress)| progress.turn);
    for (rollout, mut progress) in ours {
        turn.go_on(rollout, &mut progress, &mut plan.sites);
        turn.claim(rollout, &progress);
        plan.rollouts.insert(rollout.name.clone(), progress);
    }
    plan
}

// === impl Turn ===

impl Turn<'_> {
    fn begin(&self, rollout: &Rollout, next: &mut u64) -> Progress {
        let mut left: Vec<_> =
            self.inventory.iter().filter(|(_, place)| rollout.selects(place)).collect();
        let total = left.len();
        let mut sites = BTreeMap::new();
        for (wave, size) in rollout.waves.iter().map(|wave| &wave.size).enumerate() {
            let (taken, rest) = take(size, left, total);
            let mark = || Mark { wave, stage: Stage::Planned, before: None };
            sites.extend(taken.into_iter().map(|(name, _)| (name.clone(), mark())));
            left = rest;
        }
        *next += 1;
        Progress {
            turn: *next - 1,
            phase: Phase::Running,
            since: self.now,
            wave: 0,
            baking: None,
            approved: BTreeSet::new(),
            reason: None,
            sites,
        }
    }

    fn obey(
        &self,
        order: &Order,
        rollout: &Rollout,
        progress: &mut Progress,
        sites: &mut BTreeMap<SiteName, Target>,
    ) {
        match order {
            Order::Pause(name) if *name == rollout.name && progress.phase == Phase::Running => {
                progress.enter(Phase::Paused, Some("somebody paused it".to_owned()), self.now);
            }
            Order::Resume(name) if *name == rollout.name && progress.phase == Phase::Paused => {
                progress.enter(Phase::Running, None, self.now);
            }
            Order::Abort(name) if *name == rollout.name && progress.phase.is_open() => {
                self.undo(rollout, progress, sites);
                progress.enter(Phase::Aborted, Some("somebody aborted it".to_owned()), self.now);
            }
            Order::Approve(name, wave) if *name == rollout.name => {
                progress.approved.insert(*wave);
            }
            _ => {}
        }
    }

    fn retry(
        &self,
        rollout: &Rollout,
        progress: &mut Progress,
        sites: &mut BTreeMap<SiteName, Target>,
        next: &mut u64,
    ) {
        match progress.phase {
            Phase::Running | Phase::Finished => return,
            Phase::Paused => {}
            Phase::Aborted | Phase::RolledBack => {
                // Others may have its sites by now: it begins behind them.
                progress.turn = *next;
                *next += 1;
                progress.wave = 0;
                progress.approved.clear();
            }
        }
        for (name, mark) in &mut progress.sites {
            match mark.stage {
                Stage::Failed(_) if mark.before.is_some() => {
                    // The same again by another number, so that it counts anew.
                    if let Some(target) = sites.get_mut(name) {
                        target.change(target.models.clone(), &rollout.name);
                    }
                    mark.stage = Stage::Moving(self.now);
                }
                Stage::Failed(_) | Stage::Undone => mark.stage = Stage::Planned,
                _ => {}
            }
        }
        progress.enter(Phase::Running, None, self.now);
    }

    fn go_on(
        &self,
        rollout: &Rollout,
        progress: &mut Progress,
        sites: &mut BTreeMap<SiteName, Target>,
    ) {
        let last = rollout.wave_count().saturating_sub(1);
        for (name, place) in self.inventory {
            if !progress.sites.contains_key(name) && rollout.selects(place) {
                let mark = Mark { wave: last, stage: Stage::Planned, before: None };
                progress.sites.insert(name.clone(), mark);
            }
        }
        for (name, mark) in &mut progress.sites {
            self.observe(rollout, mark, sites.get(name), self.seen.get(name));
        }
        match progress.phase {
            Phase::Running => {
                // A wave that is through opens the next at once.
                for _ in 0..=rollout.wave_count() {
                    self.move_sites(rollout, progress, sites);
                    if !self.pass(rollout, progress, sites) {
                        break;
                    }
                }
            }
            Phase::Finished => {
                self.move_sites(rollout, progress, sites);
                self.forget(progress);
            }
            Phase::Paused | Phase::Aborted | Phase::RolledBack => {}
        }
    }

    /// What became of a site that was told.
    fn observe(
        &self,
        rollout: &Rollout,
        mark: &mut Mark,
        target: Option<&Target>,
        seen: Option<&Seen>,
    ) {
        let (Some(target), true) = (target, mark.before.is_some()) else { return };
        let Some(seen) = seen else { return };
        if seen.generation == target.generation && seen.settled {
            mark.stage = Stage::Done;
            return;
        }
        if mark.stage == Stage::Skipped && seen.online {
            // It is back: from here on it counts like everybody.
            mark.stage = Stage::Moving(seen.since);
        }
        let Stage::Moving(since) = mark.stage else { return };
        let waited = self.now.since(since.max(seen.since));
        if seen.wanted == target.generation
            && let Some(code) = &seen.failed
        {
            mark.stage = Stage::Failed(code.clone());
        } else if !seen.online && waited >= rollout.offline {
            mark.stage = Stage::Skipped;
        } else if seen.online && waited >= rollout.settle {
            mark.stage = Stage::Failed("late".to_owned());
        }
    }

    fn move_sites(
        &self,
        rollout: &Rollout,
        progress: &mut Progress,
        sites: &mut BTreeMap<SiteName, Target>,
    ) {
        let most = rollout.max_unavailable.of(progress.sites.len());
        let mut away = progress.sites.values().filter(|mark| mark.is_unavailable()).count();
        let (wave, since) = (progress.wave, progress.since);
        for (name, mark) in &mut progress.sites {
            let moves = matches!(mark.stage, Stage::Planned | Stage::Waits(_) | Stage::Skipped);
            if mark.wave > wave || !moves || mark.before.is_some() {
                continue;
            }
            let (Some(place), Some(target)) = (self.inventory.get(name), sites.get_mut(name))
            else {
                // It left; whoever comes back catches up.
                mark.stage = Stage::Skipped;
                continue;
            };
            let held = self.holds(rollout, name, place, since);
            let served = self.seen.get(name).and_then(|seen| target.served(seen));
            let held = held.or_else(|| served.is_none().then_some(Stage::Waits(Wait::Settling)));
            if let Some(stage) = held {
                mark.stage = if mark.stage == Stage::Skipped { Stage::Skipped } else { stage };
                continue;
            }
            let served = served.unwrap_or_default();
            let after = rollout.applied(&target.models);
            if after == target.models {
                mark.stage = Stage::Done;
            } else if let Some(code) = refuses(place, served, &after) {
                mark.stage = Stage::Failed(code.to_owned());
            } else if away >= most {
                mark.stage = Stage::Waits(Wait::Unavailable);
            } else {
                away += 1;
                // What it serves, not what it was stuck on the way to: that may not fit beside this.
                mark.before = Some(served.to_vec());
                mark.stage = Stage::Moving(self.now);
                target.change(after, &rollout.name);
            }
        }
    }

    /// Why a site may not move, whoever else does.
    fn holds(
        &self,
        rollout: &Rollout,
        name: &SiteName,
        place: &Place,
        since: Moment,
    ) -> Option<Stage> {
        let seen = self.seen.get(name);
        if !seen.is_some_and(|seen| seen.online) {
            // One that was never heard of is offline since the wave began.
            let since = seen.map_or(since, |seen| seen.since.max(since));
            return Some(match self.now.since(since) >= rollout.offline {
                true => Stage::Skipped,
                false => Stage::Waits(Wait::Offline(since)),
            });
        }
        if let Some(other) = self.claims.get(name) {
            return Some(Stage::Waits(Wait::Rollout(other.clone())));
        }
        let window = rollout.window.as_ref()?;
        let closed = !window.is_open(&place.zone, self.now);
        closed.then(|| Stage::Waits(Wait::Window(window.opens(&place.zone, self.now))))
    }

    /// Whether the gate of the wave has opened, and there is a next one.
    fn pass(
        &self,
        rollout: &Rollout,
        progress: &mut Progress,
        sites: &mut BTreeMap<SiteName, Target>,
    ) -> bool {
        let (gate, wave) = (rollout.gate(progress.wave), progress.wave);
        let tally = Tally::of(progress.sites.values().filter(|mark| mark.wave == wave));
        let traffic = self.traffic(progress, sites);
        if let Some(why) = tally.fails(&gate).or_else(|| judge(&gate, &traffic)) {
            self.fail(rollout, progress, sites, why);
            return false;
        }
        let empty = tally == Tally::default();
        // With nobody there it says nothing: it waits for the first that comes back.
        if tally.open > 0 || (tally.done == 0 && !empty) {
            progress.baking = None;
            return false;
        }
        let baking = *progress.baking.get_or_insert(self.now);
        let approved = !gate.approval || progress.approved.contains(&wave);
        if !approved || (!empty && self.now.since(baking) < gate.bake) {
            return false;
        }
        if wave + 1 < rollout.wave_count() {
            progress.wave += 1;
            progress.enter(Phase::Running, None, self.now);
            return true;
        }
        progress.enter(Phase::Finished, None, self.now);
        self.forget(progress);
        false
    }

    fn traffic(&self, progress: &Progress, sites: &BTreeMap<SiteName, Target>) -> Vec<Traffic> {
        let moved = progress
            .sites
            .iter()
            .filter(|(_, mark)| mark.stage == Stage::Done && mark.before.is_some());
        moved
            .filter_map(|(name, _)| Some((self.seen.get(name)?, sites.get(name)?)))
            .filter(|(seen, target)| seen.generation == target.generation)
            .map(|(seen, _)| seen.traffic)
            .collect()
    }

    fn fail(
        &self,
        rollout: &Rollout,
        progress: &mut Progress,
        sites: &mut BTreeMap<SiteName, Target>,
        why: String,
    ) {
        let why = format!("wave {}: {why}", progress.wave + 1);
        match rollout.on_failure {
            OnFailure::Pause => progress.enter(Phase::Paused, Some(why), self.now),
            OnFailure::RollBack => {
                self.undo(rollout, progress, sites);
                progress.enter(Phase::RolledBack, Some(why), self.now);
            }
        }
    }

    /// Who moved gets what it served, as a new generation.
    fn undo(
        &self,
        rollout: &Rollout,
        progress: &mut Progress,
        sites: &mut BTreeMap<SiteName, Target>,
    ) {
        for (name, mark) in &mut progress.sites {
            let Some(before) = mark.before.take() else { continue };
            if let Some(target) = sites.get_mut(name) {
                target.change(before, &rollout.name);
            }
            mark.stage = Stage::Undone;
        }
    }

    /// Nobody goes back any more once a rollout is finished.
    fn forget(&self, progress: &mut Progress) {
        for mark in progress.sites.values_mut().filter(|mark| mark.stage == Stage::Done) {
            mark.before = None;
        }
    }

    /// Later rollouts wait for this one's sites, those that it may still take back included.
    fn claim(&mut self, rollout: &Rollout, progress: &Progress) {
        for (name, mark) in &progress.sites {
            let mine = match progress.phase {
                Phase::Running | Phase::Paused => true,
                Phase::Finished => mark.is_open() || mark.stage == Stage::Skipped,
                Phase::Aborted | Phase::RolledBack => false,
            };
            if mine && !self.claims.contains_key(name) {
                self.claims.insert(name.clone(), rollout.name.clone());
            }
        }
    }
}

type Places<'a> = Vec<(&'a SiteName, &'a Place)>;

/// Those that a wave takes, and those that are left.
fn take<'a>(size: &Size, left: Places<'a>, total: usize) -> (Places<'a>, Places<'a>) {
    let count = match size {
        Size::Count(count) => *count,
        Size::Percent(percent) => (total * usize::from(*percent)).div_ceil(100),
        Size::Rest => left.len(),
        Size::Label { key, value } => {
            return left.into_iter().partition(|(_, place)| place.labels.get(key) == Some(value));
        }
    };
    let mut taken = left;
    let rest = taken.split_off(count.min(taken.len()));
    (taken, rest)
}

/// Why a site can't have these models beside those that it has.
fn refuses(place: &Place, served: &[Model], after: &[Model]) -> Option<&'static str> {
    let both = || served.iter().chain(after);
    match () {
        () if check_models(after).is_err() => Some("models"),
        () if memory_of(both()) > place.memory => Some("no-memory"),
        () if disk_of(both()) > place.disk => Some("no-disk"),
        () => None,
    }
}

// === impl Progress ===

impl Progress {
    fn enter(&mut self, phase: Phase, reason: Option<String>, now: Moment) {
        self.phase = phase;
        self.reason = reason;
        self.since = now;
        self.baking = None;
    }
}
