//! What is said of an object in its status. Pure: given the hub's state and the time.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DynamicObject, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::Value;
use wick_api::fleet::{RolloutPhase, RolloutStatus, SiteCounts, SiteStatus};
use wick_api::{Condition, Status};
use wick_fleet::plan::Phase;

use crate::shared::{SourceState, State};
use crate::show::{self, Counts, RolloutShown};

/// The condition that says whether all is well.
const READY: &str = "Ready";

/// Whether an object, as it is now, is part of the policy in force.
#[derive(Debug, PartialEq, Eq)]
pub enum Standing {
    InForce,
    /// It is wrong itself.
    Wrong(String),
    /// The policy stays as it was for another reason, such as another object that is wrong.
    Held(String),
}

/// What a condition says.
struct Said {
    status: Status,
    reason: &'static str,
    message: String,
}

pub fn site(
    state: &State,
    object: &DynamicObject,
    standing: &Standing,
    now: Timestamp,
) -> SiteStatus {
    let mut status: SiteStatus = before(object);
    let shown = object.name_any().parse().ok().and_then(|name| show::site(state, &name));
    status.observed_generation = object.metadata.generation;
    status.online = shown.as_ref().is_some_and(|shown| shown.online);
    status.generation = shown.as_ref().map_or(0, |shown| number(shown.generation));
    status.serving = shown.as_ref().map_or(0, |shown| number(shown.serving));
    let said = standing.said().unwrap_or_else(|| match shown {
        None => Said::no("NotEnrolled", "no site of this name has enrolled"),
        Some(shown) if shown.revoked => Said::no("Revoked", "it was revoked"),
        Some(shown) if !shown.online => Said::no("Offline", "it is not connected"),
        Some(shown) if shown.is_converged() => {
            Said::yes("Converged", "it serves what it is to have")
        }
        Some(shown) => match shown.reason {
            Some(reason) => {
                Said::no("Trying", format!("{reason}, after {} tries", shown.attempts.max(1)))
            }
            None => Said::no("Moving", format!("on the way to generation {}", shown.generation)),
        },
    });
    said.condition(object, now).put(&mut status.conditions);
    status
}

pub fn rollout(
    state: &State,
    object: &DynamicObject,
    standing: &Standing,
    now: Timestamp,
) -> RolloutStatus {
    let mut status: RolloutStatus = before(object);
    let shown = object.name_any().parse().ok().and_then(|name| show::rollout_summary(state, &name));
    status.observed_generation = object.metadata.generation;
    status.phase = shown.as_ref().map(|shown| phase(shown.phase));
    status.wave = shown.as_ref().map(|shown| count(shown.wave));
    status.waves = shown.as_ref().map(|shown| count(shown.waves));
    status.sites = shown.as_ref().map(|shown| sites(&shown.sites));
    let said = standing.said().unwrap_or_else(|| match shown {
        None => Said::no("Waiting", "nothing is decided before the broker was heard"),
        Some(shown) => Said::of(&shown),
    });
    said.condition(object, now).put(&mut status.conditions);
    status
}

/// The status as it is, so that a condition keeps its time. One that can't be read is made anew.
fn before<S: DeserializeOwned + Default>(object: &DynamicObject) -> S {
    serde_json::from_value(ours(object)).unwrap_or_default()
}

/// Of an object's status what the hub says: other conditions are others'.
pub fn ours(object: &DynamicObject) -> Value {
    let mut status = object.data["status"].clone();
    if let Some(conditions) = status["conditions"].as_array_mut() {
        conditions.retain(|condition| condition["type"] == READY);
    }
    status
}

fn phase(phase: Phase) -> RolloutPhase {
    match phase {
        Phase::Running => RolloutPhase::Running,
        Phase::Paused => RolloutPhase::Paused,
        Phase::Aborted => RolloutPhase::Aborted,
        Phase::RolledBack => RolloutPhase::RolledBack,
        Phase::Finished => RolloutPhase::Finished,
    }
}

fn sites(counts: &Counts) -> SiteCounts {
    SiteCounts {
        total: count(counts.total()),
        done: count(counts.done),
        moving: count(counts.moving),
        failed: count(counts.failed),
        skipped: count(counts.skipped),
    }
}

fn count(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

// === impl Standing ===

impl Standing {
    /// Of an object at a path, which is or is not what was adopted last.
    pub fn of(source: &SourceState, path: &str, adopted: bool) -> Self {
        let mistake = source.mistakes.iter().find(|mistake| mistake.file == path);
        match mistake {
            Some(mistake) if mistake.field.is_empty() => Self::Wrong(mistake.what.clone()),
            Some(mistake) => Self::Wrong(format!("{}: {}", mistake.field, mistake.what)),
            None if adopted => Self::InForce,
            None => Self::Held(source.refused.clone().unwrap_or_default()),
        }
    }

    fn said(&self) -> Option<Said> {
        match self {
            Self::InForce => None,
            Self::Wrong(what) => Some(Said::no("Invalid", what)),
            Self::Held(why) => Some(Said::no("Held", format!("the policy stays as it was: {why}"))),
        }
    }
}

// === impl Said ===

impl Said {
    fn no(reason: &'static str, message: impl Into<String>) -> Self {
        Self { status: Status::False, reason, message: message.into() }
    }

    fn yes(reason: &'static str, message: impl Into<String>) -> Self {
        Self { status: Status::True, reason, message: message.into() }
    }

    fn of(shown: &RolloutShown) -> Self {
        let RolloutShown { name, wave, waves, sites, .. } = shown;
        let there = format!("{} of {} sites are there", sites.done, sites.total());
        let why = || shown.reason.clone().unwrap_or_else(|| there.clone());
        match shown.phase {
            Phase::Running if shown.wants_approval => Self::no(
                "WantsApproval",
                format!(
                    "wave {wave} of {waves}: approve it by `wick fleet rollout approve {name}`"
                ),
            ),
            Phase::Running => Self::no("Running", format!("wave {wave} of {waves}: {there}")),
            Phase::Paused => Self::no("Paused", why()),
            Phase::Aborted => Self::no("Aborted", why()),
            Phase::RolledBack => Self::no("RolledBack", why()),
            Phase::Finished => Self::yes("Finished", there),
        }
    }

    fn condition(self, object: &DynamicObject, now: Timestamp) -> Condition {
        Condition {
            type_: READY.to_owned(),
            status: self.status,
            reason: self.reason.to_owned(),
            message: self.message,
            // As the API server writes it.
            last_transition_time: Time(Timestamp::from_second(now.as_second()).unwrap_or(now)),
            observed_generation: object.metadata.generation,
        }
    }
}

#[cfg(test)]
mod tests;
