//! The objects that a Model needs: a Deployment and a ControllerRevision for each revision, one
//! Service with EndpointSlices that the operator writes itself, and where the spec asks for them
//! autoscalers, a disruption budget, and DaemonSets that keep images on nodes. They are applied server-side with one field manager, so
//! each holds exactly the fields that are the operator's business.
//!
//! A Deployment never says how many pods it has. That goes through its `scale` subresource: it
//! is quicker, an autoscaler of Kubernetes may do it as well, and an operator that starts anew
//! can't change it by applying what it thinks.

mod network;
mod pod;
mod prefetch;
mod workload;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::Value;
use wick_api::{Model, ModelSpec, PrefetchPolicy};

use crate::revision::{Revision, RevisionName};
pub use network::{PodEndpoint, Target};

/// Who writes the objects; the field manager of every apply.
pub const MANAGER: &str = "wick-operator";

/// The class of pods that the shim runs.
const RUNTIME_CLASS: &str = "wick";

/// What a package listens on, for REST and gRPC.
pub(crate) const PORT: i32 = 8080;

/// The name of its port.
const PORT_NAME: &str = "http";

/// Labels by which objects are found; those of the convention are for people.
pub(crate) const MODEL_LABEL: &str = "wick.dev/model";
pub(crate) const REVISION_LABEL: &str = "wick.dev/revision";

/// Of a Deployment: the digest of its image.
const DIGEST_ANNOTATION: &str = "wick.dev/digest";

/// Of a ControllerRevision: the envelope that the registry had.
pub const FOUND_ANNOTATION: &str = "wick.dev/signature";

/// What is wanted for one Model.
pub struct Wanted<'a> {
    pub model: &'a Model,
    /// Those that are kept, the active one among them.
    pub revisions: &'a [Revision],
    /// Those of them that get requests now or next.
    pub current: &'a [RevisionName],
    /// Where requests go.
    pub target: &'a Target,
}

/// An object to apply.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    ControllerRevision(ControllerRevision),
    Deployment(Box<Deployment>),
    DaemonSet(Box<DaemonSet>),
    Service(Service),
    EndpointSlice(EndpointSlice),
    HorizontalPodAutoscaler(HorizontalPodAutoscaler),
    PodDisruptionBudget(PodDisruptionBudget),
}

/// What all objects of a Model have in common.
struct Owner<'a> {
    model: &'a Model,
    name: &'a str,
}

/// The objects of a Model, in the order in which they are applied.
pub fn objects(wanted: &Wanted<'_>) -> Vec<Object> {
    let Some(name) = wanted.model.metadata.name.as_deref() else { return Vec::new() };
    let owner = Owner { model: wanted.model, name };
    let mut objects = vec![Object::Service(network::service(&owner))];
    let slices = network::slices(&owner, wanted.target);
    objects.extend(slices.into_iter().map(Object::EndpointSlice));
    for revision in wanted.revisions {
        let stored = workload::stored(&owner, revision);
        objects.push(Object::ControllerRevision(stored));
        let deployment = workload::deployment(&owner, revision);
        objects.push(Object::Deployment(Box::new(deployment)));
        let scaler = workload::autoscaler(&owner, revision);
        objects.extend(scaler.map(Object::HorizontalPodAutoscaler));
        let ahead = owner.spec().prefetch.policy == PrefetchPolicy::Always;
        if ahead && wanted.current.contains(&revision.name) {
            objects.push(Object::DaemonSet(Box::new(prefetch::keepers(&owner, revision))));
        }
    }
    let budget = workload::budget(&owner);
    objects.extend(budget.map(Object::PodDisruptionBudget));
    objects
}

// === impl Object ===

impl Object {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ControllerRevision(_) => "ControllerRevision",
            Self::Deployment(_) => "Deployment",
            Self::DaemonSet(_) => "DaemonSet",
            Self::Service(_) => "Service",
            Self::EndpointSlice(_) => "EndpointSlice",
            Self::HorizontalPodAutoscaler(_) => "HorizontalPodAutoscaler",
            Self::PodDisruptionBudget(_) => "PodDisruptionBudget",
        }
    }

    pub fn name(&self) -> &str {
        let metadata = match self {
            Self::ControllerRevision(object) => &object.metadata,
            Self::Deployment(object) => &object.metadata,
            Self::DaemonSet(object) => &object.metadata,
            Self::Service(object) => &object.metadata,
            Self::EndpointSlice(object) => &object.metadata,
            Self::HorizontalPodAutoscaler(object) => &object.metadata,
            Self::PodDisruptionBudget(object) => &object.metadata,
        };
        metadata.name.as_deref().unwrap_or_default()
    }

    /// Its form as the API server takes it.
    pub fn to_value(&self) -> Value {
        let value = match self {
            Self::ControllerRevision(object) => serde_json::to_value(object),
            Self::Deployment(object) => serde_json::to_value(object),
            Self::DaemonSet(object) => serde_json::to_value(object),
            Self::Service(object) => serde_json::to_value(object),
            Self::EndpointSlice(object) => serde_json::to_value(object),
            Self::HorizontalPodAutoscaler(object) => serde_json::to_value(object),
            Self::PodDisruptionBudget(object) => serde_json::to_value(object),
        };
        value.expect("an object is plain data")
    }
}

// === impl Owner ===

impl Owner<'_> {
    fn spec(&self) -> &ModelSpec {
        &self.model.spec
    }

    fn labels(&self, revision: Option<&Revision>) -> Vec<(String, String)> {
        let mut labels = vec![
            ("app.kubernetes.io/name", "wick-model"),
            ("app.kubernetes.io/instance", self.name),
            ("app.kubernetes.io/component", "model"),
            ("app.kubernetes.io/managed-by", MANAGER),
            (MODEL_LABEL, self.name),
        ];
        if let Some(revision) = revision {
            labels.push(("app.kubernetes.io/version", revision.name.hash()));
            labels.push((REVISION_LABEL, revision.name.as_str()));
        }
        labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    /// By which the pods of a revision are found.
    fn selector(&self, revision: &Revision) -> Vec<(String, String)> {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        vec![pair(MODEL_LABEL, self.name), pair(REVISION_LABEL, revision.name.as_str())]
    }

    fn metadata(&self, name: String, revision: Option<&Revision>) -> ObjectMeta {
        ObjectMeta {
            name: Some(name),
            namespace: self.model.metadata.namespace.clone(),
            labels: Some(self.labels(revision).into_iter().collect()),
            owner_references: self.reference().map(|reference| vec![reference]),
            ..ObjectMeta::default()
        }
    }

    /// None for a Model that no API server has seen.
    fn reference(&self) -> Option<OwnerReference> {
        Some(OwnerReference {
            api_version: "wick.dev/v1alpha1".to_owned(),
            kind: "Model".to_owned(),
            name: self.name.to_owned(),
            uid: self.model.metadata.uid.clone()?,
            controller: Some(true),
            block_owner_deletion: Some(true),
        })
    }
}

#[cfg(test)]
mod tests;
