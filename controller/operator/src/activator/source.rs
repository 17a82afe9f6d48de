//! The table from the API server: Models say their ports and weights, Pods their addresses. Reads
//! only. While the API server is away, what was known stays.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::core::NamespaceResourceScope;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch_all};
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::watch;
use tokio::time::Instant;
use wick_api::{Model, ModelStatus, RevisionStatus, Scale};

use super::table::{First, ModelName, PodAddress, Route, Share, Table};
use crate::desired::{MODEL_LABEL, PORT, REVISION_LABEL};

/// How long changes are gathered: one of a hundred pods costs a look at all Models, and a held
/// request does not feel it.
const GATHER: Duration = Duration::from_millis(5);

/// What the API server has said.
#[derive(Debug, Default)]
pub struct Seen {
    models: Half<ModelSeen>,
    pods: Half<PodSeen>,
}

/// One kind of object, while it is watched and while it is listed anew.
#[derive(Debug)]
struct Half<T> {
    known: BTreeMap<ModelName, T>,
    /// What a list has brought so far.
    listed: BTreeMap<ModelName, T>,
    complete: bool,
}

/// What counts of a Model.
#[derive(Debug, Clone, PartialEq)]
struct ModelSeen {
    status: ModelStatus,
    scale: Scale,
}

/// What counts of a pod.
#[derive(Debug, Clone, PartialEq)]
struct PodSeen {
    model: ModelName,
    revision: String,
    first: First,
    /// Once its sandbox runs.
    address: Option<PodAddress>,
}

/// A client for the cluster that this process is in, or that KUBECONFIG names.
///
/// # Errors
/// There is none, or what is said of it is wrong.
pub async fn client() -> Result<Client, kube::Error> {
    Client::try_default().await
}

/// Follow the API server until this is dropped: one namespace, or all.
pub async fn follow(client: Client, only: Option<String>, table: watch::Sender<Table>) {
    let models: Api<Model> = objects(&client, only.as_deref());
    let models = watch_all(models, watcher::Config::default()).default_backoff();
    let pods: Api<Pod> = objects(&client, only.as_deref());
    let pods = watch_all(pods, watcher::Config::default().labels(MODEL_LABEL)).default_backoff();
    let (mut models, mut pods) = (models.into_stream().boxed(), pods.into_stream().boxed());
    let mut seen = Seen::default();
    let mut due: Option<Instant> = None;
    // Whether anything was said at all: no Models is news, too.
    let mut told = false;
    loop {
        let gathered = due;
        let changed = tokio::select! {
            // Streams lose nothing when they are not polled on.
            event = models.next() => match event {
                Some(Ok(event)) => seen.models.apply(event, name_of, model_seen),
                Some(Err(error)) => complain("Models", &error),
                None => return,
            },
            event = pods.next() => match event {
                Some(Ok(event)) => seen.pods.apply(event, name_of, pod_seen),
                Some(Err(error)) => complain("Pods", &error),
                None => return,
            },
            // A fixed moment, whenever it is waited for.
            () = sleep_until(gathered) => {
                due = None;
                if let Some(new) = seen.table() {
                    let first = !std::mem::replace(&mut told, true);
                    table.send_if_modified(|old| (first || *old != new) && {
                        *old = new;
                        true
                    });
                }
                false
            }
        };
        if changed && due.is_none() {
            due = Some(Instant::now() + GATHER);
        }
    }
}

fn objects<K>(client: &Client, only: Option<&str>) -> Api<K>
where
    K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match only {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

fn complain(what: &str, error: &watcher::Error) -> bool {
    tracing::warn!(%error, "cannot watch {what}; what was known stays");
    false
}

fn name_of<K: kube::Resource>(object: &K) -> ModelName {
    ModelName { namespace: object.namespace().unwrap_or_default(), name: object.name_any() }
}

fn model_seen(model: Model) -> Option<ModelSeen> {
    let status = model.status.filter(|status| status.activator.is_some())?;
    Some(ModelSeen { status, scale: model.spec.scale })
}

/// None for a pod that ends.
fn pod_seen(pod: Pod) -> Option<PodSeen> {
    let namespace = pod.metadata.namespace?;
    let labels = pod.metadata.labels?;
    let (name, revision) = (labels.get(MODEL_LABEL)?, labels.get(REVISION_LABEL)?);
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let placed = pod.spec.is_some_and(|spec| spec.node_name.is_some());
    let status = pod.status.unwrap_or_default();
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return None;
    }
    let conditions = status.conditions.unwrap_or_default();
    let ready = conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True");
    let port = u16::try_from(PORT).ok()?;
    let ip = status.pod_ip.and_then(|ip| ip.parse().ok());
    Some(PodSeen {
        model: ModelName { namespace, name: name.clone() },
        revision: revision.clone(),
        first: if placed { First::Placed } else { First::Made },
        address: ip.map(|ip| PodAddress { address: SocketAddr::new(ip, port), ready }),
    })
}

// === impl Half ===

impl<T> Default for Half<T> {
    fn default() -> Self {
        Self { known: BTreeMap::new(), listed: BTreeMap::new(), complete: false }
    }
}

impl<T: PartialEq> Half<T> {
    /// Take an event in; whether something changed.
    fn apply<K>(
        &mut self,
        event: Event<K>,
        name: impl Fn(&K) -> ModelName,
        seen: impl Fn(K) -> Option<T>,
    ) -> bool {
        match event {
            Event::Init => {
                self.listed.clear();
                false
            }
            Event::InitApply(object) => {
                let name = name(&object);
                if let Some(seen) = seen(object) {
                    self.listed.insert(name, seen);
                }
                false
            }
            Event::InitDone => {
                self.known = std::mem::take(&mut self.listed);
                self.complete = true;
                true
            }
            Event::Apply(object) => {
                let name = name(&object);
                match seen(object) {
                    Some(seen) if self.known.get(&name) == Some(&seen) => false,
                    Some(seen) => {
                        self.known.insert(name, seen);
                        true
                    }
                    None => self.known.remove(&name).is_some(),
                }
            }
            Event::Delete(object) => self.known.remove(&name(&object)).is_some(),
        }
    }
}

// === impl Seen ===

impl Seen {
    /// The table, once both kinds are known.
    fn table(&self) -> Option<Table> {
        if !self.models.complete || !self.pods.complete {
            return None;
        }
        let mut pods: BTreeMap<(&ModelName, &str), (First, Vec<PodAddress>)> = BTreeMap::new();
        for pod in self.pods.known.values() {
            let (first, addresses) = pods.entry((&pod.model, &pod.revision)).or_default();
            *first = pod.first.max(*first);
            addresses.extend(pod.address);
        }
        let models = self.models.known.iter().filter_map(|(name, seen)| {
            let of = |revision: &str| pods.get(&(name, revision)).cloned().unwrap_or_default();
            Some((name.clone(), route(seen, of)?))
        });
        Some(Table { models: models.collect() })
    }
}

fn route(seen: &ModelSeen, pods: impl Fn(&str) -> (First, Vec<PodAddress>)) -> Option<Route> {
    let status = &seen.status;
    let activator = status.activator.as_ref()?;
    let weight = |one: &RevisionStatus| u8::try_from(one.weight.clamp(0, 100)).unwrap_or(100);
    let shares = [&status.active, &status.candidate].into_iter().flatten();
    let share = |one: &RevisionStatus| {
        let (first, pods) = pods(&one.name);
        Share { name: one.name.clone(), weight: weight(one), first, pods }
    };
    let mut revisions: Vec<Share> = shares.map(share).collect();
    // All of nothing goes to the active one, which is first.
    if revisions.iter().all(|one| one.weight == 0)
        && let (Some(_), Some(first)) = (&status.active, revisions.first_mut())
    {
        first.weight = 100;
    }
    let hold = &seen.scale.hold;
    Some(Route {
        port: u16::try_from(activator.port).ok().filter(|port| *port > 0)?,
        hold: activator.hold,
        max_held: u32::try_from(hold.max_requests).unwrap_or(0),
        hold_timeout: hold.timeout.get(),
        close: activator.close,
        revisions,
    })
}

#[cfg(test)]
mod tests;
