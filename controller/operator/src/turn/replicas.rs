//! How many pods each revision has: those of the Model are divided as its traffic is, a new
//! revision has one to show what it can, and one that was left keeps its pods until they are done.

use std::collections::BTreeMap;

use super::Sight;
use crate::path;
use crate::revision::RevisionName;
use crate::rollout::{Phase, Split, State};

/// How many pods each Deployment must ask for. Those that somebody else decides are missing.
pub fn replicas(
    sight: &Sight<'_>,
    state: &State,
    split: &Split,
    action: &path::Action,
) -> BTreeMap<RevisionName, u32> {
    let asked = |name: &RevisionName| sight.asked.get(name).copied().unwrap_or(0);
    let mut wanted: BTreeMap<RevisionName, u32> =
        sight.asked.keys().map(|name| (name.clone(), 0)).collect();
    for (name, _) in &state.draining {
        wanted.insert(name.clone(), asked(name));
    }
    for (name, weight) in split {
        wanted.insert(name.clone(), share(action.replicas, *weight));
    }
    if let Some(candidate) = state.candidate()
        && !split.iter().any(|(name, _)| name == candidate)
        && !matches!(state.phase, Phase::Held { .. })
    {
        wanted.insert(candidate.clone(), start(sight, state, action));
    }
    if sight.model.spec.scale.horizontal_pod_autoscaler.is_some() {
        // From one on Kubernetes' own autoscaler decides, so only the step from and to none stays.
        wanted.retain(|name, pods| *pods == 0 || asked(name) == 0);
    }
    wanted
}

/// A share of the pods, rounded up: whoever gets requests has a pod.
fn share(pods: u32, weight: u8) -> u32 {
    let shared = u64::from(pods) * u64::from(weight);
    u32::try_from(shared.div_ceil(100)).unwrap_or(u32::MAX)
}

/// Pods of a revision that gets no traffic yet. One that will get all of it at once has as many
/// as the one that it replaces.
fn start(sight: &Sight<'_>, state: &State, action: &path::Action) -> u32 {
    let at_once = match &state.phase {
        Phase::Starting { direct, .. } => *direct || sight.model.spec.rollout.steps.is_empty(),
        _ => false,
    };
    match &state.active {
        // The first one is waited for: what is held, is held for it.
        None => action.replicas.max(1),
        Some(_) if at_once => action.replicas.max(1),
        Some(_) => 1,
    }
}
