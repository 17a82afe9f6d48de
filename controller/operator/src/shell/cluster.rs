//! What there is in the cluster, kept up to date by watches. A change of anything that belongs
//! to a Model gives that Model a turn.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, PartialObjectMeta, ResourceExt as _};
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use wick_api::Model;

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
    pods: Store<Pod>,
    deployments: Store<Deployment>,
    slices: Store<EndpointSlice>,
    revisions: Store<ControllerRevision>,
    activators: Store<Pod>,
    // What a Model may do without, to see what is left of it.
    keepers: Store<PartialObjectMeta<DaemonSet>>,
    autoscalers: Store<PartialObjectMeta<HorizontalPodAutoscaler>>,
    budgets: Store<PartialObjectMeta<PodDisruptionBudget>>,
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
        let ours = watcher::Config::default().labels(MODEL_LABEL);
        let all = |config: &watcher::Config| config.clone();
        let models = every::<Model>(client, scope);
        let activators: Api<Pod> = Api::namespaced(client.clone(), scope.own);
        let config = watcher::Config::default().labels(ACTIVATORS);
        Self {
            models: start(models, watcher::Config::default(), queue, tasks, itself),
            pods: start(every(client, scope), all(&ours), queue, tasks, owner),
            deployments: start(every(client, scope), all(&ours), queue, tasks, owner),
            slices: start(every(client, scope), all(&ours), queue, tasks, owner),
            revisions: start(every(client, scope), all(&ours), queue, tasks, owner),
            activators: start(activators, config, queue, tasks, |_: &Pod| None),
            keepers: start(every(client, scope), all(&ours), queue, tasks, owner),
            autoscalers: start(every(client, scope), all(&ours), queue, tasks, owner),
            budgets: start(every(client, scope), all(&ours), queue, tasks, owner),
        }
    }

    /// Returns when everything has been read once.
    pub async fn ready(&self) {
        let Self { models, pods, deployments, slices, revisions, activators, .. } = self;
        let Self { keepers, autoscalers, budgets, .. } = self;
        let _ = tokio::join!(
            models.wait_until_ready(),
            pods.wait_until_ready(),
            deployments.wait_until_ready(),
            slices.wait_until_ready(),
            revisions.wait_until_ready(),
            activators.wait_until_ready(),
            keepers.wait_until_ready(),
            autoscalers.wait_until_ready(),
            budgets.wait_until_ready(),
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
        let pods = of(&self.pods, key);
        let mut found: Vec<SeenPod> = pods.iter().filter_map(|pod| seen(pod)).collect();
        found.sort_by(|a, b| a.endpoint.cmp(&b.endpoint));
        found
    }

    /// How many pods the Deployment of each revision asks for.
    pub fn asked(&self, key: &Key) -> BTreeMap<RevisionName, u32> {
        let deployments = of(&self.deployments, key);
        let asked = deployments.iter().filter_map(|deployment| {
            let replicas = deployment.spec.as_ref()?.replicas.unwrap_or(1);
            let name = RevisionName::known(deployment.metadata.name.as_deref()?);
            Some((name, u32::try_from(replicas).unwrap_or(0)))
        });
        asked.collect()
    }

    /// Revisions that are kept. One that can't be read is left out: it is not ours any more.
    pub fn stored(&self, key: &Key) -> Vec<Stored> {
        let all = of(&self.revisions, key);
        all.iter().filter_map(|stored| read(stored)).collect()
    }

    /// Where the EndpointSlices of a Model send requests.
    pub fn route(&self, key: &Key, activator: u16) -> Route {
        let slices = of(&self.slices, key);
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
        of(&self.slices, key)
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

/// Watches one kind, forever.
fn start<K>(
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
    let queue = queue.clone();
    // Whose fields they are is a third of an object, and of no interest here.
    let changes = watcher(api, config).default_backoff().modify(|object| {
        object.managed_fields_mut().clear();
    });
    let changes = reflector::reflector(writer, changes).touched_objects();
    tasks.spawn(async move {
        let mut changes = std::pin::pin!(changes.into_stream());
        while let Some(change) = changes.next().await {
            match change {
                Ok(object) => {
                    if let Some(key) = key(&object) {
                        queue.add(key).await;
                    }
                }
                Err(error) => {
                    let kind = K::kind(&());
                    tracing::warn!(%kind, %error, "cannot watch; trying again");
                }
            }
        }
    });
    reader
}

fn itself(model: &Model) -> Option<Key> {
    Some(Key { namespace: model.namespace()?, name: model.name_any() })
}

/// The Model that an object says to belong to.
fn owner<K: Resource>(object: &K) -> Option<Key> {
    let meta = object.meta();
    let name = meta.labels.as_ref()?.get(MODEL_LABEL)?;
    Some(Key { namespace: meta.namespace.clone()?, name: name.clone() })
}

fn of<K>(store: &Store<K>, key: &Key) -> Vec<Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    store.state_filter(|object| owner(object).as_ref() == Some(key))
}

/// Names of objects that belong to a Model, by its uid.
fn names<K>(
    kind: &'static str,
    store: &Store<PartialObjectMeta<K>>,
    key: &Key,
    model: &str,
) -> Vec<(&'static str, String)>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let owned = |object: &PartialObjectMeta<K>| {
        let mut owners = object.metadata.owner_references.iter().flatten();
        owners.any(|owner| owner.uid == model)
    };
    let all = of(store, key).into_iter().filter(|object| owned(object));
    all.map(|object| (kind, object.name_any())).collect()
}

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
        endpoint: PodEndpoint {
            address: address.unwrap_or(NOWHERE),
            name: pod.name_any(),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            zone: None,
        },
    })
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
        let (store, mut writer) = reflector::store::<PartialObjectMeta<DaemonSet>>();
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
            writer.apply_watcher_event(&watcher::Event::Apply(object));
        }
        let key = Key { namespace: "here".to_owned(), name: "m".to_owned() };
        let found = names("DaemonSet", &store, &key, "1-2-3");
        assert_eq!(found, [("DaemonSet", "ours".to_owned())]);
    }
}
