//! What there is in the cluster, kept up to date by watches. A change of anything that belongs
//! to a Model gives that Model a turn.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, PartialObjectMeta, ResourceExt as _};
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use wick_api::Model;

use super::index::Index;
use super::queue::{Key, Queue};
use crate::desired::{FOUND_ANNOTATION, MODEL_LABEL, PodEndpoint, REVISION_LABEL};
use crate::path::Route;
use crate::revision::{Revision, RevisionName, Template};
use crate::time::Moment;
use crate::turn::{Pod as SeenPod, Stored};

/// By which activators are found in the operator's own namespace.
const ACTIVATORS: &str = "app.kubernetes.io/name=wick,app.kubernetes.io/component=activator";

/// Of a pod that has no address yet. It is not ready, and nothing is sent there.
const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Copies of what is in the cluster.
pub struct Cluster {
    pub models: Store<Model>,
    pods: Index<SeenPod>,
    /// How many pods the Deployment of a revision asks for.
    deployments: Index<(RevisionName, u32)>,
    slices: Index<EndpointSlice>,
    revisions: Index<Stored>,
    activators: Store<Pod>,
    // What a Model may do without, to see what is left of it.
    keepers: Index<Owned>,
    autoscalers: Index<Owned>,
    budgets: Index<Owned>,
}

/// An object of which only the name counts, and whose it is.
struct Owned {
    name: String,
    owners: Vec<String>,
}

/// Where to look.
pub struct Scope<'a> {
    /// One namespace, or all.
    pub namespace: Option<&'a str>,
    /// The operator's own, where the activators are.
    pub own: &'a str,
}

// === impl Cluster ===

impl Cluster {
    /// Begins to watch. The tasks end with the set.
    pub fn watch(
        client: &Client,
        scope: &Scope<'_>,
        queue: &Queue,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let models = every::<Model>(client, scope);
        let activators: Api<Pod> = Api::namespaced(client.clone(), scope.own);
        let config = watcher::Config::default().labels(ACTIVATORS);
        Self {
            models: reflect(models, watcher::Config::default(), queue, tasks, itself),
            pods: index(every(client, scope), seen, queue, tasks),
            deployments: index(every(client, scope), asked, queue, tasks),
            slices: index(
                every(client, scope),
                |slice: &EndpointSlice| Some(slice.clone()),
                queue,
                tasks,
            ),
            revisions: index(every(client, scope), read, queue, tasks),
            activators: reflect(activators, config, queue, tasks, |_: &Pod| None),
            keepers: index(every(client, scope), owned::<DaemonSet>, queue, tasks),
            autoscalers: index(
                every(client, scope),
                owned::<HorizontalPodAutoscaler>,
                queue,
                tasks,
            ),
            budgets: index(every(client, scope), owned::<PodDisruptionBudget>, queue, tasks),
        }
    }

    /// Returns when everything has been read once.
    pub async fn ready(&self) {
        let Self { models, pods, deployments, slices, revisions, activators, .. } = self;
        let Self { keepers, autoscalers, budgets, .. } = self;
        let _ = tokio::join!(
            models.wait_until_ready(),
            pods.ready(),
            deployments.ready(),
            slices.ready(),
            revisions.ready(),
            activators.wait_until_ready(),
            keepers.ready(),
            autoscalers.ready(),
            budgets.ready(),
        );
    }

    /// Activators that take requests.
    pub fn activators(&self) -> Vec<IpAddr> {
        let pods = self.activators.state();
        let mut found: Vec<IpAddr> =
            pods.iter().filter(|pod| takes_requests(pod)).filter_map(|pod| address(pod)).collect();
        found.sort();
        found
    }

    /// The pods of a Model, but for those that have ended.
    pub fn pods(&self, key: &Key) -> Vec<SeenPod> {
        let pods = self.pods.of(key);
        let mut found: Vec<SeenPod> = pods.iter().map(|pod| SeenPod::clone(pod)).collect();
        found.sort_by(|a, b| a.endpoint.cmp(&b.endpoint));
        found
    }

    /// How many pods the Deployment of each revision asks for.
    pub fn asked(&self, key: &Key) -> BTreeMap<RevisionName, u32> {
        self.deployments.of(key).iter().map(|asked| (asked.0.clone(), asked.1)).collect()
    }

    /// Revisions that are kept. One that can't be read is left out: it is not ours any more.
    pub fn stored(&self, key: &Key) -> Vec<Stored> {
        self.revisions.of(key).iter().map(|stored| Stored::clone(stored)).collect()
    }

    /// Where the EndpointSlices of a Model send requests.
    pub fn route(&self, key: &Key, activator: u16) -> Route {
        let slices = self.slices.of(key);
        let elsewhere = slices.iter().any(|slice| {
            let ports = slice.ports.iter().flatten();
            let other = ports.filter_map(|port| port.port).any(|port| port != i32::from(activator));
            other && !slice.endpoints.is_empty()
        });
        if elsewhere { Route::Pods } else { Route::Activator }
    }

    /// What there is of the kinds that a Model may do without, if it is the Model's own.
    pub fn optional(&self, key: &Key, model: &str) -> Vec<(&'static str, String)> {
        let mut found = names("DaemonSet", &self.keepers, key, model);
        found.extend(names("HorizontalPodAutoscaler", &self.autoscalers, key, model));
        found.extend(names("PodDisruptionBudget", &self.budgets, key, model));
        found
    }

    /// The EndpointSlices of a Model.
    pub fn slices(&self, key: &Key) -> Vec<Arc<EndpointSlice>> {
        self.slices.of(key)
    }
}

/// Objects of a kind, wherever the operator may look.
fn every<K>(client: &Client, scope: &Scope<'_>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
{
    match scope.namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Watches one kind, forever, and keeps all of it.
fn reflect<K>(
    api: Api<K>,
    config: watcher::Config,
    queue: &Queue,
    tasks: &mut JoinSet<()>,
    key: impl Fn(&K) -> Option<Key> + Send + 'static,
) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (reader, writer) = reflector::store::<K>();
    let changes = reflector::reflector(writer, watch(api, config));
    tasks.spawn(follow(changes, queue.clone(), move |event| match event {
        Event::Apply(object) | Event::InitApply(object) | Event::Delete(object) => {
            key(object).into_iter().collect()
        }
        Event::Init | Event::InitDone => BTreeSet::new(),
    }));
    reader
}

/// Watches what belongs to Models, forever, and keeps what `view` gives of it.
fn index<K, V>(
    api: Api<K>,
    view: fn(&K) -> Option<V>,
    queue: &Queue,
    tasks: &mut JoinSet<()>,
) -> Index<V>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    let index = Index::new();
    let kept = index.clone();
    let changes = watch(api, watcher::Config::default().labels(MODEL_LABEL));
    tasks.spawn(follow(changes, queue.clone(), move |event| kept.take(event, view)));
    index
}

fn watch<K>(
    api: Api<K>,
    config: watcher::Config,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    // Whose fields they are is a third of an object, and of no interest here.
    watcher(api, config).default_backoff().modify(|object| object.managed_fields_mut().clear())
}

/// Gives each Model a turn for which `take` says that something has changed.
async fn follow<K: Resource<DynamicType = ()>>(
    changes: impl Stream<Item = watcher::Result<Event<K>>>,
    queue: Queue,
    take: impl Fn(&Event<K>) -> BTreeSet<Key>,
) {
    let mut changes = std::pin::pin!(changes);
    while let Some(change) = changes.next().await {
        match change {
            Ok(event) => {
                for key in take(&event) {
                    queue.add(key).await;
                }
            }
            Err(error) => {
                let kind = K::kind(&());
                tracing::warn!(%kind, %error, "cannot watch; trying again");
            }
        }
    }
}

fn itself(model: &Model) -> Option<Key> {
    Some(Key { namespace: model.namespace()?, name: model.name_any() })
}

/// Names of objects that belong to a Model, by its uid.
fn names(
    kind: &'static str,
    index: &Index<Owned>,
    key: &Key,
    model: &str,
) -> Vec<(&'static str, String)> {
    let all =
        index.of(key).into_iter().filter(|object| object.owners.iter().any(|uid| uid == model));
    all.map(|object| (kind, object.name.clone())).collect()
}

fn owned<K>(object: &PartialObjectMeta<K>) -> Option<Owned>
where
    K: Resource<DynamicType = ()>,
{
    let name = object.metadata.name.clone()?;
    let owners = object.metadata.owner_references.iter().flatten();
    Some(Owned { name, owners: owners.map(|owner| owner.uid.clone()).collect() })
}

fn asked(deployment: &Deployment) -> Option<(RevisionName, u32)> {
    let replicas = deployment.spec.as_ref()?.replicas.unwrap_or(1);
    let name = RevisionName::known(deployment.metadata.name.as_deref()?);
    Some((name, u32::try_from(replicas).unwrap_or(0)))
}

/// Nothing of a pod that has ended.
fn seen(pod: &Pod) -> Option<SeenPod> {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return None;
    }
    let revision = RevisionName::known(pod.metadata.labels.as_ref()?.get(REVISION_LABEL)?);
    let address = address(pod);
    Some(SeenPod {
        revision,
        ready: address.is_some() && takes_requests(pod),
        unplaced: unplaced(pod),
        endpoint: PodEndpoint {
            address: address.unwrap_or(NOWHERE),
            name: pod.name_any(),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            zone: None,
        },
    })
}

/// What the scheduler says of a pod that no node takes.
fn unplaced(pod: &Pod) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.iter().flatten();
    let mut refused = conditions.filter(|one| {
        one.type_ == "PodScheduled"
            && one.status == "False"
            && one.reason.as_deref() == Some("Unschedulable")
    });
    let refused = refused.next().filter(|_| pod.metadata.deletion_timestamp.is_none())?;
    Some(refused.message.clone().unwrap_or_default())
}

fn takes_requests(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready =
        conditions.into_iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True");
    ready && pod.metadata.deletion_timestamp.is_none()
}

fn address(pod: &Pod) -> Option<IpAddr> {
    pod.status.as_ref()?.pod_ip.as_deref()?.parse().ok()
}

fn read(stored: &ControllerRevision) -> Option<Stored> {
    let data = stored.data.as_ref()?.0.clone();
    let template: Template = serde_json::from_value(data).ok()?;
    let found =
        stored.metadata.annotations.as_ref().and_then(|all| all.get(FOUND_ANNOTATION)).cloned();
    let name = RevisionName::known(stored.metadata.name.as_deref()?);
    let created = stored.metadata.creation_timestamp.as_ref();
    let created = created.map_or(0, |time| u64::try_from(time.0.as_millisecond()).unwrap_or(0));
    let revision = Revision { name, template, found };
    Some(Stored { revision, created: Moment::from_millis(created) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_belongs_to_a_model_is_taken_for_its_own() {
        let index = Index::new();
        let objects = [
            ("ours", "here", "m", "1-2-3"),
            // The Model of this name that was before.
            ("older", "here", "m", "0-0-0"),
            ("elsewhere", "there", "m", "1-2-3"),
            ("another", "here", "n", "1-2-3"),
        ];
        for (name, namespace, model, owner) in objects {
            let object = json!({
                "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
                "metadata": {
                    "name": name, "namespace": namespace, "labels": {MODEL_LABEL: model},
                    "ownerReferences": [{
                        "apiVersion": "wick.dev/v1alpha1", "kind": "Model", "name": model,
                        "uid": owner,
                    }],
                },
            });
            let object = serde_json::from_value(object).unwrap();
            index.take(&Event::Apply(object), owned::<DaemonSet>);
        }
        let key = Key { namespace: "here".to_owned(), name: "m".to_owned() };
        let found = names("DaemonSet", &index, &key, "1-2-3");
        assert_eq!(found, [("DaemonSet", "ours".to_owned())]);
    }
}
