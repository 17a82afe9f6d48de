//! A turn of a Model in the cluster: look, decide, act.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::api::ResourceExt as _;
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType, Recorder};
use parking_lot::Mutex;
use wick_api::{Model, ModelStatus, ResolvedPackage};

use super::apply::{Applied, Writer};
use super::cluster::Cluster;
use super::demands::{Demand, Demands};
use super::metrics::Metrics;
use super::ports::Ports;
use super::queue::Key;
use super::resolve::Resolver;
use super::workers::{Said, Workers};
use crate::autoscale::Load;
use crate::compare::Samples;
use crate::desired::{self, Target, Wanted};
use crate::path::Route;
use crate::revision::Revision;
use crate::rollout::{Command, Comparison, State};
use crate::time::Moment;
use crate::turn::{Asked, Memory, Note, Sight, Turn, Unknown};

/// The annotation by which somebody asks for something: a command, and after a slash anything
/// that makes it another than the last.
pub const COMMAND: &str = "wick.dev/rollout";

/// Generations whose digests are remembered.
const MAX_RESOLVED: usize = 21;

/// Waits after a failed turn, at first and at most.
const AGAIN: Duration = Duration::from_millis(200);
const AGAIN_MOST: Duration = Duration::from_secs(30);

/// Longest time without a turn: a change that no watch has told of is seen then.
const RESYNC: Duration = Duration::from_secs(600);

/// Why a turn was not finished.
#[derive(Debug, thiserror::Error)]
pub enum TurnError {
    #[error("the API server did not take a change")]
    Api(#[from] kube::Error),
    #[error("all ports of activators are taken: there are too many Models")]
    NoPort,
}

/// Everything that a turn needs.
pub struct Operator {
    pub client: Client,
    pub cluster: Cluster,
    pub demands: Demands,
    pub workers: Workers,
    pub resolver: Resolver,
    pub recorder: Recorder,
    pub metrics: Metrics,
    pub ports: Ports,
    pub known: Mutex<BTreeMap<Key, Known>>,
}

/// What is known of a Model.
pub struct Known {
    uid: String,
    memory: Memory,
    applied: Applied,
    samples: Samples,
    /// The newest status: the copy of the Model may be older.
    status: Option<ModelStatus>,
    /// Requests that activators had counted.
    total: u64,
    failures: u32,
}

// === impl Operator ===

impl Operator {
    /// One turn of one Model.
    pub async fn turn(&self, model: &Model) -> Result<Action, TurnError> {
        let Some(key) = key(model) else { return Ok(Action::await_change()) };
        if model.metadata.deletion_timestamp.is_some() {
            // Its objects belong to it, and go with it.
            self.forget(&key);
            return Ok(Action::await_change());
        }
        let now = super::now();
        let mut known = self.take(&key, model, now);
        let result = self.act(&key, model, &mut known, now).await;
        known.failures = if result.is_ok() { 0 } else { known.failures.saturating_add(1) };
        self.known.lock().insert(key, known);
        result
    }

    /// How long to wait after a turn that failed.
    pub fn again(&self, model: &Model) -> Duration {
        let failures = key(model).and_then(|key| Some(self.known.lock().get(&key)?.failures));
        (AGAIN * 2_u32.saturating_pow(failures.unwrap_or(0).min(16))).min(AGAIN_MOST)
    }

    /// A Model that is gone.
    pub fn forget(&self, key: &Key) {
        self.known.lock().remove(key);
        self.ports.release(key);
        self.resolver.forget(key);
    }

    /// What is known of a Model, out of the common store while its turn lasts: there is never
    /// more than one at a time.
    fn take(&self, key: &Key, model: &Model, now: Moment) -> Known {
        let uid = model.metadata.uid.clone().unwrap_or_default();
        let known = self.known.lock().remove(key);
        known.filter(|known| known.uid == uid).unwrap_or_else(|| {
            let pods = self.cluster.asked(key).values().sum();
            Known {
                uid,
                memory: Memory::new(model, pods, now),
                applied: Applied::default(),
                samples: Samples::default(),
                status: model.status.clone(),
                total: 0,
                failures: 0,
            }
        })
    }

    async fn act(
        &self,
        key: &Key,
        model: &Model,
        known: &mut Known,
        now: Moment,
    ) -> Result<Action, TurnError> {
        let mut model = model.clone();
        model.status.clone_from(&known.status);
        let port = model.status.as_ref().and_then(|status| status.activator);
        let port = port.and_then(|activator| u16::try_from(activator.port).ok());
        let port = self.ports.of(key, port).ok_or(TurnError::NoPort)?;
        self.demands.listen(&self.cluster.activators());

        let sight = self.look(key, &model, (known, port), now).await;
        let turn = known.memory.turn(&sight, now);
        let asked = sight.asked.clone();
        let status = resolved(turn.status.clone(), &model, sight.wanted.as_ref());
        let writer = Writer { client: &self.client, key };
        // The port must be known before anything is sent to it.
        if known.status.as_ref() != Some(&status) {
            writer.status(&model, &status).await?;
            known.status = Some(status);
        }
        self.write(&writer, (&model, known), &turn, now).await?;
        for (name, replicas) in &turn.replicas {
            let is = asked.get(name).copied();
            // A Deployment that was made just now asks for one.
            if is.unwrap_or(1) != *replicas {
                writer.scale(name, *replicas).await?;
                let (scale, path) = (turn.scale.code(), turn.path.code());
                tracing::info!(model = %key, revision = %name, from = is, to = *replicas, scale, path, "scaled");
            }
        }
        for name in &turn.gone {
            writer.remove(name).await?;
        }
        self.tell(&model, &turn.notes).await;
        let again = self.resolver.again(key);
        let next = [turn.next, again].into_iter().flatten().min();
        let wait = next.map_or(RESYNC, |next| next.since(super::now()).min(RESYNC));
        Ok(Action::requeue(wait))
    }

    /// Everything that is seen of a Model.
    async fn look<'a>(
        &self,
        key: &Key,
        model: &'a Model,
        (known, port): (&mut Known, u16),
        now: Moment,
    ) -> Sight<'a> {
        let pods = self.cluster.pods(key);
        let able: Vec<_> =
            pods.iter().filter(|pod| pod.ready).map(|pod| pod.endpoint.address).collect();
        let said = self.workers.ask(&able, now).await;
        let demand = self.demands.of(key);
        let load = load(said.as_ref(), demand.as_ref(), &mut known.total);
        let demand = demand.unwrap_or_default();
        let sent = demand.sent;
        let compared = compare(model, known, demand, now);
        let stored = self.cluster.stored(key);
        Sight {
            model,
            wanted: self.resolver.wanted(key, model, &stored, now),
            stored,
            asked: self.cluster.asked(key),
            pods,
            route: self.cluster.route(key, port),
            activators: self.cluster.activators(),
            port,
            load,
            sent,
            compared,
            command: command(model),
            device: said.and_then(|said| said.device),
        }
    }

    async fn write(
        &self,
        writer: &Writer<'_>,
        (model, known): (&Model, &mut Known),
        turn: &Turn,
        now: Moment,
    ) -> Result<(), TurnError> {
        let (revisions, current) = (&turn.revisions, &turn.current);
        let wanted = Wanted { model, revisions, current, target: &turn.target };
        let mut objects = desired::objects(&wanted);
        let slices = self.cluster.slices(writer.key);
        for slice in &slices {
            let name = slice.name_any();
            let is = objects
                .iter()
                .any(|object| object.kind() == "EndpointSlice" && object.name() == name);
            if !is {
                writer.delete_slice(&name).await?;
            } else if self.differs(writer.key, &turn.target) {
                known.applied.forget("EndpointSlice", &name);
            }
        }
        for (kind, name) in self.cluster.optional(writer.key, &known.uid) {
            if !objects.iter().any(|object| object.kind() == kind && object.name() == name) {
                writer.delete_optional(kind, &name).await?;
                known.applied.forget(kind, &name);
            }
        }
        // New pods first, and then what leads to them.
        objects.sort_by_key(|object| object.kind() == "EndpointSlice");
        writer.apply(&objects, &mut known.applied, now).await?;
        Ok(())
    }

    /// Whether somebody has changed where the slices lead.
    fn differs(&self, key: &Key, target: &Target) -> bool {
        match target {
            Target::Activator { port, .. } => self.cluster.route(key, *port) == Route::Pods,
            Target::Pods(_) => false,
        }
    }

    async fn tell(&self, model: &Model, notes: &[Note]) {
        let reference = ObjectReference {
            api_version: Some("wick.dev/v1alpha1".to_owned()),
            kind: Some("Model".to_owned()),
            name: model.metadata.name.clone(),
            namespace: model.metadata.namespace.clone(),
            uid: model.metadata.uid.clone(),
            ..ObjectReference::default()
        };
        for note in notes {
            let event = Event {
                type_: if note.warning { EventType::Warning } else { EventType::Normal },
                reason: note.reason.to_owned(),
                note: Some(note.text.clone()),
                action: "Rollout".to_owned(),
                secondary: None,
            };
            if let Err(error) = self.recorder.publish(&event, &reference).await {
                tracing::debug!(%error, "an event is lost");
            }
        }
    }
}

/// What is asked of a Model. Requests that activators have sent are at workers too, so the larger
/// number counts. None if nobody says anything.
fn load(said: Option<&Said>, demand: Option<&Demand>, total: &mut u64) -> Option<Load> {
    if said.is_none() && demand.is_none() {
        return None;
    }
    let mut requests = said.map_or(0.0, |said| said.requests);
    let mut held = 0;
    if let Some(demand) = demand {
        requests = requests.max(f64::from(demand.sent));
        held = demand.held;
        // Some came and went between two looks.
        if demand.total > *total {
            requests = requests.max(f64::MIN_POSITIVE);
        }
        *total = demand.total;
    }
    Some(Load { requests: requests + f64::from(held), held })
}

/// How candidate and active revision did.
fn compare(model: &Model, known: &mut Known, demand: Demand, now: Moment) -> Comparison {
    let status = model.status.as_ref().and_then(|status| status.rollout.as_ref());
    let state = status.map(State::from_status).unwrap_or_default();
    if !state.is_split() {
        known.samples = Samples::default();
        return Comparison::default();
    }
    let window = model.spec.rollout.gates.window.get();
    known.samples.add(now, window, demand.revisions);
    known.samples.compare(state.active.as_ref(), state.candidate())
}

/// What somebody asks for that was not obeyed yet.
fn command(model: &Model) -> Option<Asked> {
    let text = model.metadata.annotations.as_ref()?.get(COMMAND)?;
    let status = model.status.as_ref().and_then(|status| status.rollout.as_ref());
    if status.and_then(|rollout| rollout.obeyed.as_ref()) == Some(text) {
        return None;
    }
    let command = match text.split('/').next()? {
        "promote" => Command::Promote,
        "abort" => Command::Abort,
        "undo" => Command::Undo,
        _ => return None,
    };
    Some(Asked { text: text.clone(), command })
}

/// Remembers what this generation's tag stood for.
fn resolved(
    mut status: ModelStatus,
    model: &Model,
    wanted: Result<&Revision, &Unknown>,
) -> ModelStatus {
    let (Ok(revision), Some(generation)) = (wanted, model.metadata.generation) else {
        return status;
    };
    if !status.resolved.iter().any(|one| one.generation == generation) {
        let image = revision.template.image.clone();
        let revision = revision.name.to_string();
        status.resolved.push(ResolvedPackage { generation, image, revision });
    }
    let kept: BTreeSet<i64> = {
        let mut generations: Vec<i64> = status.resolved.iter().map(|one| one.generation).collect();
        generations.sort_unstable_by(|a, b| b.cmp(a));
        generations.into_iter().take(MAX_RESOLVED).collect()
    };
    status.resolved.retain(|one| kept.contains(&one.generation));
    status
}

pub fn key(model: &Model) -> Option<Key> {
    Some(Key { namespace: model.namespace()?, name: model.metadata.name.clone()? })
}

/// A turn, as the controller's loop wants it.
pub async fn reconcile(model: Arc<Model>, operator: Arc<Operator>) -> Result<Action, TurnError> {
    let started = std::time::Instant::now();
    let result = operator.turn(&model).await;
    operator.metrics.turned(started.elapsed(), result.is_ok());
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_activators_and_workers_say_is_not_counted_twice() {
        let said = |requests| Said { requests, device: None };
        let demand = |held, sent, total| Demand { held, sent, total, ..Demand::default() };
        let mut total = 0;
        assert_eq!(load(None, None, &mut total), None);
        let both = load(Some(&said(4.0)), Some(&demand(2, 3, 9)), &mut total);
        assert_eq!(both, Some(Load { requests: 6.0, held: 2 }));
        // One came and went.
        let some = load(Some(&said(0.0)), Some(&demand(0, 0, 10)), &mut total).unwrap();
        assert!(some.requests > 0.0);
        let none = load(Some(&said(0.0)), Some(&demand(0, 0, 10)), &mut total);
        assert_eq!(none, Some(Load { requests: 0.0, held: 0 }));
    }
}
