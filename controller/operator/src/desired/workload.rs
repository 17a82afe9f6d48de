//! What a revision needs to run: its Deployment, the record of what it is, and who else scales it.

use k8s_openapi::api::apps::v1::{
    ControllerRevision, Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment,
};
use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, MetricSpec,
    MetricTarget, ResourceMetricSource,
};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{DIGEST_ANNOTATION, FOUND_ANNOTATION, MODEL_LABEL, Owner, pod};
use crate::revision::Revision;

/// ReplicaSets of a Deployment that are kept. Going back is a matter of revisions, so only what
/// an update of the operator itself has replaced.
const HISTORY: i32 = 1;

/// What a revision is, kept for as long as the revision is: the spec may ask for another by now.
pub fn stored(owner: &Owner<'_>, revision: &Revision) -> ControllerRevision {
    let data = serde_json::to_value(&revision.template).expect("a template is plain data");
    let mut metadata = owner.metadata(revision.name.to_string(), Some(revision));
    if let Some(found) = &revision.found {
        // It is no part of the name, and pods must carry the same after a restart.
        let found = (FOUND_ANNOTATION.to_owned(), found.clone());
        metadata.annotations.get_or_insert_default().extend([found]);
    }
    ControllerRevision {
        metadata,
        data: Some(RawExtension(data)),
        // Order is not by number: names are hashes, and one may come back.
        revision: 1,
    }
}

pub fn deployment(owner: &Owner<'_>, revision: &Revision) -> Deployment {
    let mut metadata = owner.metadata(revision.name.to_string(), Some(revision));
    let digest = (DIGEST_ANNOTATION.to_owned(), revision.digest().to_owned());
    metadata.annotations.get_or_insert_default().extend([digest]);
    let deadline = owner.spec().rollout.progress_deadline.get().as_secs();
    Deployment {
        metadata,
        spec: Some(DeploymentSpec {
            selector: LabelSelector {
                match_labels: Some(owner.selector(revision).into_iter().collect()),
                ..LabelSelector::default()
            },
            template: PodTemplateSpec {
                metadata: Some(pod::metadata(owner, revision)),
                spec: Some(pod::spec(owner, revision)),
            },
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_unavailable: Some(IntOrString::Int(0)),
                    max_surge: Some(IntOrString::String("25%".to_owned())),
                }),
            }),
            progress_deadline_seconds: i32::try_from(deadline).ok(),
            revision_history_limit: Some(HISTORY),
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    }
}

/// Kubernetes' own autoscaler of a revision, where the spec asks for it. It rests while the
/// Deployment has no pods, so the step to zero and back stays the operator's.
pub fn autoscaler(owner: &Owner<'_>, revision: &Revision) -> Option<HorizontalPodAutoscaler> {
    let scale = &owner.spec().scale;
    let wanted = scale.horizontal_pod_autoscaler.as_ref()?;
    Some(HorizontalPodAutoscaler {
        metadata: owner.metadata(revision.name.to_string(), Some(revision)),
        spec: Some(HorizontalPodAutoscalerSpec {
            scale_target_ref: CrossVersionObjectReference {
                api_version: Some("apps/v1".to_owned()),
                kind: "Deployment".to_owned(),
                name: revision.name.to_string(),
            },
            min_replicas: Some(scale.min_replicas.max(1)),
            max_replicas: scale.max_replicas,
            metrics: Some(vec![MetricSpec {
                type_: "Resource".to_owned(),
                resource: Some(ResourceMetricSource {
                    name: "cpu".to_owned(),
                    target: MetricTarget {
                        type_: "Utilization".to_owned(),
                        average_utilization: Some(wanted.target_cpu_utilization),
                        ..MetricTarget::default()
                    },
                }),
                ..MetricSpec::default()
            }]),
            ..HorizontalPodAutoscalerSpec::default()
        }),
        ..HorizontalPodAutoscaler::default()
    })
}

/// One pod at a time may be moved, where there are always two. With fewer a budget would only
/// keep nodes from being drained: a model that scales to zero bears to be moved.
pub fn budget(owner: &Owner<'_>) -> Option<PodDisruptionBudget> {
    if owner.spec().scale.min_replicas < 2 {
        return None;
    }
    let selector = (MODEL_LABEL.to_owned(), owner.name.to_owned());
    Some(PodDisruptionBudget {
        metadata: owner.metadata(owner.name.to_owned(), None),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(LabelSelector {
                match_labels: Some([selector].into()),
                ..LabelSelector::default()
            }),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    })
}
