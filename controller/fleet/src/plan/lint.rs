//! What must not be published, whatever the planner thought.

use std::collections::BTreeMap;
use std::fmt;

use crate::model::{check_models, disk_of, memory_of};
use crate::names::{Generation, SiteName};
use crate::plan::{Inventory, MAX_WAVES, Plan, Policy, Size, Target};

/// Something that is wrong with a plan or a policy, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub place: String,
    pub what: String,
}

/// Everything that is wrong with a plan; a plan with anything here is not published.
#[must_use]
pub fn lint(policy: &Policy, inventory: &Inventory, before: &Plan, plan: &Plan) -> Vec<Problem> {
    let mut problems = Vec::new();
    policy_problems(policy, &mut problems);
    for (name, target) in &plan.sites {
        let fresh = Target::default();
        let old = before.sites.get(name).unwrap_or(&fresh);
        site_problems(name, old, target, inventory, &mut problems);
    }
    for name in before.sites.keys().filter(|name| !plan.sites.contains_key(*name)) {
        problems
            .push(Problem::new(name, "is gone from the plan: its generation would begin again"));
    }
    let mut movers: BTreeMap<&SiteName, usize> = BTreeMap::new();
    for rollout in &policy.rollouts {
        let Some(progress) = plan.rollouts.get(&rollout.name) else { continue };
        let away = progress.sites.values().filter(|mark| mark.is_unavailable()).count();
        let most = rollout.max_unavailable.of(progress.sites.len());
        if away > most && progress.phase.is_open() {
            let what = format!("has {away} sites away, and {most} may be");
            problems.push(Problem::new(&rollout.name, what));
        }
        for (site, mark) in &progress.sites {
            if mark.before.is_some() && progress.phase.is_open() {
                *movers.entry(site).or_default() += 1;
            }
        }
    }
    for (site, _) in movers.into_iter().filter(|(_, count)| *count > 1) {
        problems.push(Problem::new(site, "is moved by two rollouts at once"));
    }
    problems
}

fn policy_problems(policy: &Policy, problems: &mut Vec<Problem>) {
    for (at, rollout) in policy.rollouts.iter().enumerate() {
        let mut add = |what: String| problems.push(Problem::new(&rollout.name, what));
        if policy.rollouts[..at].iter().any(|other| other.name == rollout.name) {
            add("is there twice: give one another name".to_owned());
        }
        if rollout.waves.len() > MAX_WAVES {
            add(format!("has {} waves, and {MAX_WAVES} are the most", rollout.waves.len()));
        }
        if let Err(error) = check_models(&rollout.models) {
            add(error.to_string());
        }
        for (at, wave) in rollout.waves.iter().enumerate() {
            let percent = matches!(wave.size, Size::Percent(percent) if percent > 100);
            if percent || wave.gate.success > 100 {
                add(format!("wave {} has more than 100 percent", at + 1));
            }
            if wave.size == Size::Rest && at + 1 < rollout.waves.len() {
                add(format!("wave {} takes all that is left, and is not the last", at + 1));
            }
        }
    }
}

fn site_problems(
    name: &SiteName,
    old: &Target,
    new: &Target,
    inventory: &Inventory,
    problems: &mut Vec<Problem>,
) {
    let mut add = |what: String| problems.push(Problem::new(name, what));
    let (was, is): (Generation, Generation) = (old.generation, new.generation);
    if is < was {
        add(format!("goes back from generation {was} to {is}"));
    }
    if is == was {
        if old.models != new.models {
            add(format!("has other models in the same generation {is}"));
        }
        return;
    }
    if let Err(error) = check_models(&new.models) {
        add(error.to_string());
    }
    let Some(place) = inventory.get(name) else {
        // Only a way back: somebody who left the inventory meanwhile.
        return;
    };
    // What is there beside it depends on what the site serves, which the planner has seen.
    let (memory, disk) = (memory_of(&new.models), disk_of(&new.models));
    if memory > place.memory {
        add(format!("needs {memory} bytes of memory, and has {}", place.memory));
    }
    if disk > place.disk {
        add(format!("needs {disk} bytes of disk, and has {}", place.disk));
    }
}

// === impl Problem ===

impl Problem {
    fn new(place: &impl fmt::Display, what: impl Into<String>) -> Self {
        Self { place: place.to_string(), what: what.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}
