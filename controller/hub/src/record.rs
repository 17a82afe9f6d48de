//! What is written of a decision: what differs from the one before, each generation that a site was told, and what
//! became of rollouts. Pure.

use serde::{Deserialize, Serialize};
use wick_fleet::plan::{Phase, Plan, Progress};
use wick_fleet::{Model, Moment, RolloutName};

use crate::shared::MADE;
use crate::store::{Change, Table, numbered};

/// Generations of a site that are kept, for people who ask what it had.
const KEPT: u64 = 20;

/// A generation that a site was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    pub at: Moment,
    pub generation: u64,
    pub models: Vec<Model>,
    pub rollout: Option<RolloutName>,
}

/// Something that became of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub at: Moment,
    pub rollout: RolloutName,
    /// None where it left the policy.
    pub phase: Option<Phase>,
    /// Counted from one, for people.
    pub wave: usize,
    pub reason: Option<String>,
}

/// Something that somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    pub at: Moment,
    pub who: String,
    pub what: String,
    pub about: String,
}

/// Add what differs.
pub fn differences(before: &Plan, after: &Plan, change: &mut Change) {
    let empty = change.is_empty();
    for (name, target) in &after.sites {
        let old = before.sites.get(name);
        if old == Some(target) {
            continue;
        }
        change.put(Table::Targets, name.as_str(), target);
        let number = target.generation.0;
        if number > 0 && old.is_none_or(|old| old.generation != target.generation) {
            let (models, rollout) = (target.models.clone(), target.rollout.clone());
            let told = Told { at: after.made, generation: number, models, rollout };
            let key = |number| numbered(&format!("{name}/"), number);
            change.put(Table::Generations, key(number), &told);
            if number > KEPT {
                change.delete(Table::Generations, key(number - KEPT));
            }
        }
    }
    for (name, progress) in &after.rollouts {
        let old = before.rollouts.get(name);
        if old != Some(progress) {
            change.put(Table::Rollouts, name.as_str(), progress);
        }
        let told = |progress: &Progress| (progress.phase, progress.wave, progress.reason.clone());
        if old.map(told) != Some(told(progress)) {
            let (phase, wave, reason) = told(progress);
            let event = Event {
                at: after.made,
                rollout: name.clone(),
                phase: Some(phase),
                wave: wave + 1,
                reason,
            };
            change.log(Table::History, &event);
        }
    }
    for (name, progress) in
        before.rollouts.iter().filter(|(name, _)| !after.rollouts.contains_key(*name))
    {
        change.delete(Table::Rollouts, name.as_str());
        let reason = Some("it left the policy".to_owned());
        let wave = progress.wave + 1;
        change.log(
            Table::History,
            &Event { at: after.made, rollout: name.clone(), phase: None, wave, reason },
        );
    }
    if !(empty && change.is_empty()) {
        change.put(Table::Meta, MADE, &after.made);
    }
}
