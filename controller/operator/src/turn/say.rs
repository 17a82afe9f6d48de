//! What is said of a Model: its conditions, its revisions, and what people are told once.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use wick_api::{Address, ModelStatus, Reason, RevisionStatus};

use super::{Note, Sight, Unknown};
use crate::autoscale;
use crate::path;
use crate::revision::RevisionName;
use crate::rollout::{Event, Phase, Settings, Split, State};
use crate::time::Moment;

/// The status after a turn.
pub fn status(
    sight: &Sight<'_>,
    state: &State,
    split: &Split,
    (action, scale): (&path::Action, autoscale::Reason),
    now: Moment,
) -> ModelStatus {
    let model = sight.model;
    let generation = model.metadata.generation;
    let mut status = model.status.clone().unwrap_or_default();
    status.observed_generation = generation;
    let weight = |name: &RevisionName| {
        split.iter().find(|(other, _)| other == name).map_or(0, |(_, weight)| i32::from(*weight))
    };
    let revision = |name: &RevisionName| {
        let (replicas, ready_replicas) = sight.count(name);
        let image = sight.image(name).unwrap_or_default();
        RevisionStatus {
            name: name.to_string(),
            image,
            weight: weight(name),
            replicas,
            ready_replicas,
        }
    };
    status.active = state.active.as_ref().map(revision);
    status.candidate = state.candidate().map(revision);
    let mut rollout = state.to_status();
    rollout.obeyed = match &sight.command {
        Some(asked) => Some(asked.text.clone()),
        None => status.rollout.as_ref().and_then(|rollout| rollout.obeyed.clone()),
    };
    status.rollout = Some(rollout);
    status.replicas = Some(super::signed(sight.pods.len()));
    status.ready_replicas = Some(super::signed(sight.pods.iter().filter(|pod| pod.ready).count()));
    if sight.device.is_some() {
        status.device.clone_from(&sight.device);
    }
    if let (Some(name), Some(namespace)) = (&model.metadata.name, &model.metadata.namespace) {
        status.address = Some(Address { url: format!("http://{name}.{namespace}.svc") });
    }
    let now = time(now);
    for (reason, message) in [
        ready(sight, state, action),
        progressing(sight, state),
        degraded(sight, action, scale, state),
    ] {
        status.say(reason, &message, &now, generation);
    }
    status
}

/// What people should be told of an event.
pub fn note(event: &Event) -> Note {
    let (reason, text, warning) = match event {
        Event::Started(name) => ("Started", format!("revision {name} starts"), false),
        Event::Step(name, step) => {
            ("Step", format!("revision {name} gets the share of step {}", step + 1), false)
        }
        Event::Promoted(name) => ("Promoted", format!("revision {name} gets all requests"), false),
        Event::Left(name, why) => {
            let why = why.of_model();
            (why.code(), format!("revision {name} was left: {}", why.meaning()), true)
        }
        Event::Held(name, why) => {
            let why = why.of_model();
            let text = format!("revision {name} gets no requests: {}", why.meaning());
            (why.code(), text, true)
        }
        Event::Late(name) => {
            ("NeverReady", format!("revision {name} is late, and there is no other"), true)
        }
        Event::Refused(command, why) => {
            ("Refused", format!("{command:?} is not possible: {why}").to_lowercase(), true)
        }
    };
    Note { reason, text, warning }
}

fn ready(sight: &Sight<'_>, state: &State, action: &path::Action) -> (Reason, String) {
    let none = String::new();
    if state.active.is_none() {
        return match &sight.wanted {
            Err(Unknown::Unresolved(why)) => (Reason::ImageUnresolved, why.clone()),
            Err(Unknown::Unsigned(why)) => (Reason::Unsigned, why.clone()),
            Err(Unknown::Asking) => (Reason::ImageUnresolved, none),
            Ok(_) => (Reason::Starting, none),
        };
    }
    let reason = match action.reason {
        path::Reason::Cold => Reason::Cold,
        path::Reason::Starting => Reason::Starting,
        path::Reason::StartTooLong => Reason::NoReadyPods,
        path::Reason::Split
        | path::Reason::Warm
        | path::Reason::Leaving
        | path::Reason::SliceNotWritten => Reason::Serving,
    };
    (reason, none)
}

fn progressing(sight: &Sight<'_>, state: &State) -> (Reason, String) {
    let none = String::new();
    match (&state.phase, &sight.wanted) {
        (Phase::Idle, Err(Unknown::Unresolved(why) | Unknown::Unsigned(why))) => {
            (Reason::Resolving, why.clone())
        }
        (Phase::Idle, Err(Unknown::Asking)) => (Reason::Resolving, none),
        (Phase::Idle, Ok(_)) => match &state.rejected {
            Some((name, _)) => {
                (Reason::Complete, format!("{name} was left, and requests go to the one before"))
            }
            None => (Reason::Complete, none),
        },
        (Phase::Starting { candidate, .. } | Phase::Late { candidate, .. }, _) => {
            (Reason::NewRevision, format!("{candidate} is starting"))
        }
        (Phase::Stepping { candidate, step, .. }, _) => {
            let rollout = &sight.model.spec.rollout;
            let steps = Settings::of(rollout).steps();
            let text = format!("{candidate}, step {} of {steps}", step + 1);
            if rollout.paused {
                (Reason::Paused, text)
            } else if Settings::of(rollout).is_manual(*step) {
                (Reason::AwaitingPromotion, text)
            } else {
                (Reason::RollingOut, text)
            }
        }
        (Phase::Held { candidate, .. }, _) => {
            (Reason::AwaitingPromotion, format!("{candidate} is held without requests"))
        }
    }
}

fn degraded(
    sight: &Sight<'_>,
    action: &path::Action,
    scale: autoscale::Reason,
    state: &State,
) -> (Reason, String) {
    let unplaced =
        || sight.pods.iter().filter_map(|pod| Some((&pod.revision, pod.unplaced.as_ref()?)));
    let of = |name: &RevisionName, reason: Reason| {
        let why = unplaced().find(|(other, _)| *other == name);
        let why = why.map_or_else(String::new, |(_, why)| format!("; no node takes it: {why}"));
        (reason, format!("{name}: {}{why}", reason.meaning()))
    };
    match (&state.phase, &state.rejected, &sight.wanted) {
        (Phase::Held { candidate, reason, .. }, ..) => of(candidate, reason.of_model()),
        (Phase::Late { candidate, .. }, ..) => of(candidate, Reason::NeverReady),
        (_, _, Err(Unknown::Unsigned(why))) if state.active.is_some() => {
            (Reason::UpdateUnsigned, why.clone())
        }
        (_, Some((name, reason)), _) => of(name, reason.of_model()),
        _ => match (running(action, scale), unplaced().next()) {
            // These have a pod that no node takes as their reason, or are less than it.
            (Reason::AsWanted | Reason::NoMetrics | Reason::NeverReady, Some((name, why))) => {
                (Reason::Unschedulable, format!("{name}: {why}"))
            }
            (reason, _) => (reason, String::new()),
        },
    }
}

/// What is not as it should be where no rollout is the reason.
fn running(action: &path::Action, scale: autoscale::Reason) -> Reason {
    match action.reason {
        path::Reason::SliceNotWritten => Reason::EndpointsNotWritten,
        path::Reason::StartTooLong => Reason::NeverReady,
        _ if scale == autoscale::Reason::NoMetrics && action.replicas > 0 => Reason::NoMetrics,
        _ => Reason::AsWanted,
    }
}

fn time(moment: Moment) -> Time {
    let seconds = i64::try_from(moment.millis() / 1000).unwrap_or(i64::MAX);
    Time(Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX))
}

// === impl Sight ===

impl Sight<'_> {
    /// The image of a revision that is known.
    fn image(&self, name: &RevisionName) -> Option<String> {
        let wanted = self.wanted.as_ref().ok();
        let all = self.stored.iter().map(|stored| &stored.revision).chain(wanted);
        all.into_iter().find(|known| known.name == *name).map(|known| known.template.image.clone())
    }
}
