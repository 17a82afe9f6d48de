//! One turn of a Model: from what is seen of it to everything that must be so. It puts the
//! decisions together, each of which has a file of its own: `rollout` says which revisions there
//! are and who gets which share, `autoscale` how many pods, `path` where requests go meanwhile.
//!
//! No I/O and no clock: the same sight at the same time gives the same turn.

mod kept;
mod replicas;
mod say;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use wick_api::{ActivatorStatus, Model, ModelStatus};

use crate::autoscale::{self, Autoscaler, Load, Pods};
use crate::desired::{PodEndpoint, Target};
use crate::path::{self, Path, Route};
use crate::revision::{Revision, RevisionName};
use crate::rollout::{self, Command, Comparison, State};
use crate::time::Moment;

/// What is remembered of a Model from turn to turn. All of it may be lost: a rollout's state is
/// in the Model's status, and the rest is learnt again.
#[derive(Debug)]
pub struct Memory {
    autoscaler: Autoscaler,
    path: Path,
}

/// What is seen of a Model.
#[derive(Debug)]
pub struct Sight<'a> {
    pub model: &'a Model,
    /// What the spec asks for, or why that is not known.
    pub wanted: Result<Revision, Unknown>,
    /// Revisions that are kept in the cluster.
    pub stored: Vec<Stored>,
    /// How many pods the Deployment of each revision asks for.
    pub asked: BTreeMap<RevisionName, u32>,
    pub pods: Vec<Pod>,
    /// Where the EndpointSlices send requests, as the API server has them.
    pub route: Route,
    pub activators: Vec<IpAddr>,
    /// The port at the activators that stands for this Model.
    pub port: u16,
    /// What is asked of it. None while nobody says.
    pub load: Option<Load>,
    /// Requests that activators have sent to pods, and that are not answered.
    pub sent: u32,
    /// How candidate and active revision did within the gates' window.
    pub compared: Comparison,
    /// What somebody asks for, and has not been told yet.
    pub command: Option<Asked>,
    /// What the workers compute on.
    pub device: Option<String>,
}

/// A revision in the cluster.
#[derive(Debug, Clone)]
pub struct Stored {
    pub revision: Revision,
    pub created: Moment,
}

/// A pod of a Model.
#[derive(Debug, Clone)]
pub struct Pod {
    pub revision: RevisionName,
    /// Whether it takes requests: ready, and not about to go.
    pub ready: bool,
    /// Why no node takes it, as the scheduler says.
    pub unplaced: Option<String>,
    pub endpoint: PodEndpoint,
}

/// What somebody asks for. The same text is obeyed once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub text: String,
    pub command: Command,
}

/// Why it is not known which revision the spec asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unknown {
    /// The registry has not answered yet.
    Asking,
    /// The registry can't say.
    Unresolved(String),
    /// Nobody who may has signed it.
    Unsigned(String),
}

/// Everything that must be so.
#[derive(Debug)]
pub struct Turn {
    /// Revisions whose objects must be there.
    pub revisions: Vec<Revision>,
    /// Those of them that get requests now or next.
    pub current: Vec<RevisionName>,
    /// Revisions whose objects must go.
    pub gone: Vec<RevisionName>,
    pub target: Target,
    /// How many pods each Deployment must ask for. One that is missing stays as it is.
    pub replicas: BTreeMap<RevisionName, u32>,
    pub status: ModelStatus,
    pub notes: Vec<Note>,
    /// When to look again if nothing changes before.
    pub next: Option<Moment>,
    /// Why there are so many pods, for logs and metrics.
    pub scale: autoscale::Reason,
    pub path: path::Reason,
}

/// Something that people should be told once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    pub reason: &'static str,
    pub text: String,
    pub warning: bool,
}

// === impl Memory ===

impl Memory {
    /// Nothing is known but how many pods there are.
    pub fn new(model: &Model, pods: u32, now: Moment) -> Self {
        let settings = autoscale::Settings::of(&model.spec.scale);
        let start = model.spec.rollout.progress_deadline.get();
        Self { autoscaler: Autoscaler::new(settings, now), path: Path::new(start, pods, now) }
    }

    /// What must be so now.
    pub fn turn(&mut self, sight: &Sight<'_>, now: Moment) -> Turn {
        let model = sight.model;
        let settings = rollout::Settings::of(&model.spec.rollout);
        self.autoscaler.set(autoscale::Settings::of(&model.spec.scale));
        let before = sight.state();
        let ready = sight.ready();
        let seen = rollout::Seen {
            wanted: sight.wanted.as_ref().ok().map(|revision| revision.name.clone()),
            ready: ready.clone(),
            compared: sight.compared,
        };
        let command = sight.command.as_ref().map(|asked| asked.command);
        let (state, events) = rollout::advance(&before, &settings, &seen, command, now);
        let split = state.split(&settings, &ready);

        let carrying: BTreeSet<&RevisionName> = split.iter().map(|(name, _)| name).collect();
        let asked = carrying.iter().filter_map(|name| sight.asked.get(*name)).sum();
        let able = sight.pods.iter().filter(|pod| pod.ready && carrying.contains(&pod.revision));
        let able: Vec<PodEndpoint> = able.map(|pod| pod.endpoint.clone()).collect();
        let pods = Pods { asked, ready: count(able.len()) };
        if let Some(load) = sight.load {
            self.autoscaler.observe(now, load);
        }
        let decision = self.autoscaler.decide(now, pods);
        // While two revisions are compared both must answer, called or not.
        let least = u32::from(state.is_split());
        let action = self.path.advance(
            now,
            path::Seen {
                wanted: decision.replicas.max(least),
                ready: pods.ready,
                held: sight.load.map_or(0, |load| load.held),
                sent: sight.sent,
                split: state.is_split(),
                route: sight.route,
            },
        );
        let target = match action.route {
            Route::Pods => Target::Pods(able),
            Route::Activator => {
                Target::Activator { addresses: sight.activators.clone(), port: sight.port }
            }
        };
        let (revisions, gone) = kept::kept(sight, &state);
        let replicas = replicas::replicas(sight, &state, &split, &action);
        let mut status = say::status(sight, &state, &split, (&action, decision.reason), now);
        status.activator = Some(ActivatorStatus {
            port: i32::from(sight.port),
            hold: action.hold,
            close: action.close == Some(Route::Activator),
        });
        let busy = asked > 0 || action.replicas > 0 || state.candidate().is_some();
        let tick = busy.then(|| self.autoscaler.next());
        let next = [action.next, state.due(&settings), tick].into_iter().flatten().min();
        Turn {
            revisions,
            current: state.active.iter().chain(state.candidate()).cloned().collect(),
            gone,
            target,
            replicas,
            status,
            notes: events.iter().map(say::note).collect(),
            next,
            scale: decision.reason,
            path: action.reason,
        }
    }
}

// === impl Sight ===

impl Sight<'_> {
    /// Where the rollout was.
    pub fn state(&self) -> State {
        let status = self.model.status.as_ref().and_then(|status| status.rollout.as_ref());
        status.map(State::from_status).unwrap_or_default()
    }

    fn ready(&self) -> BTreeSet<RevisionName> {
        let pods = self.pods.iter().filter(|pod| pod.ready);
        pods.map(|pod| pod.revision.clone()).collect()
    }

    /// Pods of a revision, and those of them that are ready.
    fn count(&self, name: &RevisionName) -> (i32, i32) {
        let pods = self.pods.iter().filter(|pod| pod.revision == *name);
        let ready = pods.clone().filter(|pod| pod.ready).count();
        (signed(pods.count()), signed(ready))
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn signed(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
