//! Makes the cluster what a turn wants: server-side apply with one field manager, and only of
//! what has changed since it was last applied.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use wick_api::{Model, ModelStatus};

use super::queue::Key;
use crate::desired::{MANAGER, Object};
use crate::revision::RevisionName;
use crate::time::Moment;

/// How often an object is applied again, whoever may have changed it meanwhile.
const REPEAT: Duration = Duration::from_secs(600);

/// What was applied for one Model: of each object a hash, and when.
#[derive(Debug, Default)]
pub struct Applied(BTreeMap<(&'static str, String), ([u8; 32], Moment)>);

/// Writes for one Model.
pub struct Writer<'a> {
    pub client: &'a Client,
    pub key: &'a Key,
}

// === impl Applied ===

impl Applied {
    /// An object that is not as it was applied must be applied anew.
    pub fn forget(&mut self, kind: &'static str, name: &str) {
        self.0.remove(&(kind, name.to_owned()));
    }

    fn is_done(&self, id: &(&'static str, String), hash: [u8; 32], now: Moment) -> bool {
        self.0.get(id).is_some_and(|(done, when)| *done == hash && now.since(*when) < REPEAT)
    }
}

// === impl Writer ===

impl Writer<'_> {
    /// Applies objects in their order. What is applied before an error stays.
    pub async fn apply(
        &self,
        objects: &[Object],
        applied: &mut Applied,
        now: Moment,
    ) -> Result<(), kube::Error> {
        for object in objects {
            let value = object.to_value();
            let id = (object.kind(), object.name().to_owned());
            let hash: [u8; 32] = Sha256::digest(value.to_string().as_bytes()).into();
            if applied.is_done(&id, hash, now) {
                continue;
            }
            let name = object.name();
            match object {
                Object::ControllerRevision(_) => self.one::<ControllerRevision>(name, &value).await,
                Object::Deployment(_) => self.one::<Deployment>(name, &value).await,
                Object::DaemonSet(_) => self.one::<DaemonSet>(name, &value).await,
                Object::Service(_) => self.one::<Service>(name, &value).await,
                Object::EndpointSlice(_) => self.one::<EndpointSlice>(name, &value).await,
                Object::HorizontalPodAutoscaler(_) => {
                    self.one::<HorizontalPodAutoscaler>(name, &value).await
                }
                Object::PodDisruptionBudget(_) => {
                    self.one::<PodDisruptionBudget>(name, &value).await
                }
            }?;
            applied.0.insert(id, (hash, now));
        }
        Ok(())
    }

    /// How many pods a Deployment asks for. One that is gone meanwhile needs none.
    pub async fn scale(&self, name: &RevisionName, replicas: u32) -> Result<(), kube::Error> {
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        let params =
            PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let scaled = self.api::<Deployment>().patch_scale(name.as_str(), &params, &patch).await;
        match scaled {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            other => other.map(drop),
        }
    }

    /// Takes away what a revision has. Pods finish what they have by themselves.
    pub async fn remove(&self, name: &RevisionName) -> Result<(), kube::Error> {
        self.delete::<HorizontalPodAutoscaler>(name.as_str()).await?;
        self.delete::<Deployment>(name.as_str()).await?;
        self.delete::<ControllerRevision>(name.as_str()).await
    }

    pub async fn delete_slice(&self, name: &str) -> Result<(), kube::Error> {
        self.delete::<EndpointSlice>(name).await
    }

    /// Takes away one of the kinds that a Model may do without.
    pub async fn delete_optional(&self, kind: &str, name: &str) -> Result<(), kube::Error> {
        match kind {
            "DaemonSet" => self.delete::<DaemonSet>(name).await,
            "HorizontalPodAutoscaler" => self.delete::<HorizontalPodAutoscaler>(name).await,
            "PodDisruptionBudget" => self.delete::<PodDisruptionBudget>(name).await,
            _ => Ok(()),
        }
    }

    pub async fn status(&self, model: &Model, status: &ModelStatus) -> Result<(), kube::Error> {
        let name = &self.key.name;
        let value = json!({
            "apiVersion": "wick.dev/v1alpha1",
            "kind": "Model",
            "metadata": {"name": name, "namespace": self.key.namespace, "uid": model.metadata.uid},
            "status": status,
        });
        let params = PatchParams::apply(MANAGER).force();
        self.api::<Model>().patch_status(name, &params, &Patch::Apply(&value)).await.map(drop)
    }

    async fn one<K>(&self, name: &str, value: &Value) -> Result<(), kube::Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        K: Clone + std::fmt::Debug + DeserializeOwned,
    {
        let params = PatchParams::apply(MANAGER).force();
        let patched = self.api::<K>().patch(name, &params, &Patch::Apply(value)).await?;
        tracing::debug!(kind = %K::kind(&()), name, version = patched.meta().resource_version, "applied");
        Ok(())
    }

    async fn delete<K>(&self, name: &str) -> Result<(), kube::Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        K: Clone + std::fmt::Debug + DeserializeOwned,
    {
        match self.api::<K>().delete(name, &DeleteParams::background()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            other => other.map(drop),
        }
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.key.namespace)
    }
}
