//! What keeps the image of a revision on the nodes that its pods may run on: a pod on each of them
//! that has the image and does not run it. The shim is told so by an annotation: it checks the
//! image's signatures, compiles what can be compiled ahead, and starts a process that waits.
//!
//! These pods have none of the labels of those that answer, so no budget, no activator and no
//! constraint of spreading counts them.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{
    DaemonSet, DaemonSetSpec, DaemonSetUpdateStrategy, RollingUpdateDaemonSet,
};
use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{MODEL_LABEL, Owner, REVISION_LABEL, RUNTIME_CLASS, pod};
use crate::revision::Revision;

/// By which the pods are found; the value is their revision.
const LABEL: &str = "wick.dev/prefetch";

/// By which the shim knows that a package is not to run.
const ANNOTATION: &str = "wick.dev/prefetch";

/// What such a pod needs: its process has some hundred KiB, and computes nothing.
const CPU: &str = "1m";
const MEMORY: &str = "4Mi";
const MEMORY_LIMIT: &str = "16Mi";

/// A process that holds nothing ends at once.
const TERMINATION_SECONDS: i64 = 1;

/// The pods that keep a revision's image.
pub fn keepers(owner: &Owner<'_>, revision: &Revision) -> DaemonSet {
    let selector = BTreeMap::from([(LABEL.to_owned(), revision.name.to_string())]);
    DaemonSet {
        metadata: owner.metadata(revision.name.to_string(), Some(revision)),
        spec: Some(DaemonSetSpec {
            selector: LabelSelector { match_labels: Some(selector), ..LabelSelector::default() },
            template: PodTemplateSpec {
                metadata: Some(metadata(owner, revision)),
                spec: Some(spec(revision)),
            },
            // Nobody waits for them, so all of them may change at once.
            update_strategy: Some(DaemonSetUpdateStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDaemonSet {
                    max_unavailable: Some(IntOrString::String("100%".to_owned())),
                    ..RollingUpdateDaemonSet::default()
                }),
            }),
            revision_history_limit: Some(0),
            ..DaemonSetSpec::default()
        }),
        ..DaemonSet::default()
    }
}

fn metadata(owner: &Owner<'_>, revision: &Revision) -> ObjectMeta {
    let mut labels: BTreeMap<String, String> = owner.labels(Some(revision)).into_iter().collect();
    labels.remove(MODEL_LABEL);
    labels.remove(REVISION_LABEL);
    labels.insert("app.kubernetes.io/component".to_owned(), "prefetch".to_owned());
    labels.insert(LABEL.to_owned(), revision.name.to_string());
    let mut annotations = BTreeMap::from([(ANNOTATION.to_owned(), "true".to_owned())]);
    if let Some(envelope) = revision.envelope() {
        annotations.insert(pod::SIGNATURE.to_owned(), envelope.to_owned());
    }
    ObjectMeta { labels: Some(labels), annotations: Some(annotations), ..ObjectMeta::default() }
}

fn spec(revision: &Revision) -> PodSpec {
    let template = &revision.template;
    let amount = |name: &str, amount: &str| (name.to_owned(), Quantity(amount.to_owned()));
    PodSpec {
        runtime_class_name: Some(RUNTIME_CLASS.to_owned()),
        enable_service_links: Some(false),
        automount_service_account_token: Some(false),
        // Registries may know the account.
        service_account_name: template.service_account_name.clone(),
        image_pull_secrets: pod::pull_secrets(template),
        containers: vec![Container {
            name: pod::CONTAINER.to_owned(),
            image: Some(template.image.clone()),
            image_pull_policy: Some("IfNotPresent".to_owned()),
            resources: Some(ResourceRequirements {
                requests: Some([amount("cpu", CPU), amount("memory", MEMORY)].into()),
                limits: Some([amount("memory", MEMORY_LIMIT)].into()),
                ..ResourceRequirements::default()
            }),
            security_context: Some(pod::container_security()),
            ..Container::default()
        }],
        security_context: Some(pod::pod_security()),
        termination_grace_period_seconds: Some(TERMINATION_SECONDS),
        node_selector: pod::node_selector(template),
        tolerations: pod::tolerations(template),
        ..PodSpec::default()
    }
}
