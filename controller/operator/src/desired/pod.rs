//! The pod of a revision: one package, run by the shim, with as little as it needs. It keeps to
//! the restricted profile of Kubernetes' pod security, so it runs in any namespace.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapKeySelector, Container, ContainerPort, EnvVar, EnvVarSource,
    HTTPGetAction, LocalObjectReference, PodResourceClaim, PodSecurityContext, PodSpec, Probe,
    ResourceClaim, ResourceRequirements, SeccompProfile, SecretKeySelector, SecurityContext,
    Toleration, TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use wick_api::{DeviceClaim, Resources};

use super::{Owner, PORT, PORT_NAME, RUNTIME_CLASS};
use crate::revision::{Revision, Template};

/// The name of the one container.
pub const CONTAINER: &str = "model";

/// A user that owns nothing; the worker needs none in particular.
const USER: i64 = 65_532;

/// More than the 25 s that a worker takes to finish requests after SIGTERM.
const TERMINATION_SECONDS: i64 = 30;

/// Annotations that the shim reads; it refuses those that it does not know.
pub const SIGNATURE: &str = "wick.dev/signature";
const NETWORK: &str = "wick.dev/network";

/// The annotation by which a worker bounds what it has on a device, and the resource by which the scheduler counts
/// what all pods of a node have.
const DEVICE_MEMORY: &str = "wick.dev/device-memory";

pub fn metadata(owner: &Owner<'_>, revision: &Revision) -> ObjectMeta {
    let mut annotations = BTreeMap::new();
    if let Some(envelope) = revision.envelope() {
        annotations.insert(SIGNATURE.to_owned(), envelope.to_owned());
    }
    if !revision.template.network.is_empty() {
        annotations.insert(NETWORK.to_owned(), revision.template.network.join(", "));
    }
    if let Some(amount) = revision.template.resources.limits.get(DEVICE_MEMORY) {
        // A shim reads numbers; it says of any other what is wrong.
        let text = amount.bytes().map_or_else(|| amount.to_string(), |bytes| bytes.to_string());
        annotations.insert(DEVICE_MEMORY.to_owned(), text);
    }
    ObjectMeta {
        labels: Some(owner.labels(Some(revision)).into_iter().collect()),
        annotations: (!annotations.is_empty()).then_some(annotations),
        ..ObjectMeta::default()
    }
}

pub fn spec(owner: &Owner<'_>, revision: &Revision) -> PodSpec {
    let template = &revision.template;
    let scheduling = &template.scheduling;
    PodSpec {
        runtime_class_name: Some(RUNTIME_CLASS.to_owned()),
        enable_service_links: Some(false),
        automount_service_account_token: Some(false),
        service_account_name: template.service_account_name.clone(),
        image_pull_secrets: pull_secrets(template),
        containers: vec![container(template)],
        security_context: Some(pod_security()),
        termination_grace_period_seconds: Some(TERMINATION_SECONDS),
        resource_claims: some(template.devices.iter().map(pod_claim).collect()),
        node_selector: node_selector(template),
        tolerations: tolerations(template),
        topology_spread_constraints: some(spread(owner, revision)),
        priority_class_name: scheduling.priority_class_name.clone(),
        ..PodSpec::default()
    }
}

fn container(template: &Template) -> Container {
    Container {
        name: CONTAINER.to_owned(),
        image: Some(template.image.clone()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        ports: Some(vec![ContainerPort {
            name: Some(PORT_NAME.to_owned()),
            container_port: PORT,
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        env: some(template.env.iter().map(env).collect()),
        resources: resources(&template.resources, &template.devices),
        // A pod is ready as soon as it says so; what it costs to ask is next to nothing.
        readiness_probe: Some(Probe { period_seconds: Some(1), ..probe("/v2/health/ready") }),
        // Serves as long as the process answers, also while the model loads.
        liveness_probe: Some(Probe { period_seconds: Some(10), ..probe("/v2/health/live") }),
        security_context: Some(container_security()),
        ..Container::default()
    }
}

pub fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            ..SeccompProfile::default()
        }),
        ..PodSecurityContext::default()
    }
}

pub fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            ..Capabilities::default()
        }),
        ..SecurityContext::default()
    }
}

fn probe(path: &str) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String(PORT_NAME.to_owned()),
            ..HTTPGetAction::default()
        }),
        // A worker that computes on every core answers a little later.
        timeout_seconds: Some(5),
        failure_threshold: Some(3),
        ..Probe::default()
    }
}

fn env(wanted: &wick_api::EnvVar) -> EnvVar {
    let from = wanted.value_from.as_ref().map(|from| EnvVarSource {
        secret_key_ref: from.secret_key_ref.as_ref().map(|key| SecretKeySelector {
            name: key.name.clone(),
            key: key.key.clone(),
            optional: None,
        }),
        config_map_key_ref: from.config_map_key_ref.as_ref().map(|key| ConfigMapKeySelector {
            name: key.name.clone(),
            key: key.key.clone(),
            optional: None,
        }),
        ..EnvVarSource::default()
    });
    EnvVar { name: wanted.name.clone(), value: wanted.value.clone(), value_from: from }
}

fn resources(wanted: &Resources, devices: &[DeviceClaim]) -> Option<ResourceRequirements> {
    let amounts = |amounts: &BTreeMap<String, wick_api::Quantity>| {
        let all = amounts.iter();
        let all: BTreeMap<_, _> =
            all.map(|(name, amount)| (name.clone(), Quantity(amount.to_string()))).collect();
        (!all.is_empty()).then_some(all)
    };
    let claims = devices
        .iter()
        .map(|device| ResourceClaim { name: device.name.clone(), request: device.request.clone() });
    let found = ResourceRequirements {
        requests: amounts(&wanted.requests),
        limits: amounts(&wanted.limits),
        claims: some(claims.collect()),
    };
    (found != ResourceRequirements::default()).then_some(found)
}

fn pod_claim(device: &DeviceClaim) -> PodResourceClaim {
    PodResourceClaim {
        name: device.name.clone(),
        resource_claim_name: device.resource_claim_name.clone(),
        resource_claim_template_name: device.resource_claim_template_name.clone(),
    }
}

pub fn pull_secrets(template: &Template) -> Option<Vec<LocalObjectReference>> {
    let secrets = template.image_pull_secrets.iter();
    some(secrets.map(|secret| LocalObjectReference { name: secret.name.clone() }).collect())
}

pub fn node_selector(template: &Template) -> Option<BTreeMap<String, String>> {
    let selector = &template.scheduling.node_selector;
    (!selector.is_empty()).then(|| selector.clone())
}

pub fn tolerations(template: &Template) -> Option<Vec<Toleration>> {
    some(template.scheduling.tolerations.iter().map(toleration).collect())
}

fn toleration(wanted: &wick_api::Toleration) -> Toleration {
    Toleration {
        key: wanted.key.clone(),
        operator: Some(wanted.operator.as_str().to_owned()),
        value: wanted.value.clone(),
        effect: wanted.effect.clone(),
        toleration_seconds: wanted.toleration_seconds,
    }
}

fn spread(owner: &Owner<'_>, revision: &Revision) -> Vec<TopologySpreadConstraint> {
    let wanted = &revision.template.scheduling.topology_spread_constraints;
    let selector = || LabelSelector {
        match_labels: Some(owner.selector(revision).into_iter().collect()),
        ..LabelSelector::default()
    };
    let all = wanted.iter().map(|one| TopologySpreadConstraint {
        topology_key: one.topology_key.clone(),
        max_skew: one.max_skew,
        when_unsatisfiable: one.when_unsatisfiable.as_str().to_owned(),
        label_selector: Some(selector()),
        ..TopologySpreadConstraint::default()
    });
    all.collect()
}

/// A list that is left out where it is empty.
fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}
