//! The Service, which selects nothing, and its EndpointSlices, which say where requests go.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ObjectReference, Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Owner, PORT, PORT_NAME};

/// The port of the Service; the one that a URL without a port means.
const SERVICE_PORT: i32 = 80;

/// Endpoints of one slice, as Kubernetes' own controller has it.
const MAX_ENDPOINTS: usize = 100;

/// Who writes a slice: without it Kubernetes' mirror would take the slice for one of its own.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

/// Which Service a slice is for.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Where requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// To the activators, which know the Model by the port.
    Activator { addresses: Vec<IpAddr>, port: u16 },
    /// To pods that are ready.
    Pods(Vec<PodEndpoint>),
}

/// A pod that is ready.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodEndpoint {
    pub address: IpAddr,
    pub name: String,
    pub uid: String,
    pub node: Option<String>,
    pub zone: Option<String>,
}

pub fn service(owner: &Owner<'_>) -> Service {
    Service {
        metadata: owner.metadata(owner.name.to_owned(), None),
        spec: Some(ServiceSpec {
            ports: Some(vec![ServicePort {
                name: Some(PORT_NAME.to_owned()),
                port: SERVICE_PORT,
                target_port: Some(IntOrString::Int(PORT)),
                protocol: Some("TCP".to_owned()),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// One slice for each family of addresses and a hundred of them; one that is empty if there are
/// none, so that the Service has a slice which others may watch.
pub fn slices(owner: &Owner<'_>, target: &Target) -> Vec<EndpointSlice> {
    let (port, mut endpoints): (i32, Vec<(IpAddr, Endpoint)>) = match target {
        Target::Activator { addresses, port } => {
            (i32::from(*port), addresses.iter().map(|ip| (*ip, endpoint(*ip))).collect())
        }
        Target::Pods(pods) => {
            (PORT, pods.iter().map(|pod| (pod.address, pod_endpoint(owner, pod))).collect())
        }
    };
    // The same pods in another order are no change.
    endpoints.sort_by_key(|(address, _)| *address);
    endpoints.dedup_by_key(|(address, _)| *address);
    let (four, six): (Vec<_>, Vec<_>) = endpoints.into_iter().partition(|(ip, _)| ip.is_ipv4());
    let mut slices = family(owner, "IPv4", port, &four);
    slices.extend(family(owner, "IPv6", port, &six));
    if slices.is_empty() {
        slices.push(slice(owner, "IPv4", port, (0, &[])));
    }
    slices
}

fn family(
    owner: &Owner<'_>,
    family: &str,
    port: i32,
    endpoints: &[(IpAddr, Endpoint)],
) -> Vec<EndpointSlice> {
    let chunks = endpoints.chunks(MAX_ENDPOINTS).enumerate();
    chunks.map(|chunk| slice(owner, family, port, chunk)).collect()
}

fn slice(
    owner: &Owner<'_>,
    family: &str,
    port: i32,
    (number, endpoints): (usize, &[(IpAddr, Endpoint)]),
) -> EndpointSlice {
    let name = format!("{}-{}-{number}", owner.name, family.to_ascii_lowercase());
    let mut metadata = owner.metadata(name, None);
    let labels = metadata.labels.get_or_insert_default();
    labels.insert(MANAGED_BY.to_owned(), super::MANAGER.to_owned());
    labels.insert(SERVICE_NAME.to_owned(), owner.name.to_owned());
    EndpointSlice {
        metadata,
        address_type: family.to_owned(),
        endpoints: endpoints.iter().map(|(_, endpoint)| endpoint.clone()).collect(),
        ports: Some(vec![EndpointPort {
            name: Some(PORT_NAME.to_owned()),
            port: Some(port),
            protocol: Some("TCP".to_owned()),
            ..EndpointPort::default()
        }]),
    }
}

fn endpoint(address: IpAddr) -> Endpoint {
    Endpoint {
        addresses: vec![address.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(true),
            serving: Some(true),
            terminating: Some(false),
        }),
        ..Endpoint::default()
    }
}

fn pod_endpoint(owner: &Owner<'_>, pod: &PodEndpoint) -> Endpoint {
    Endpoint {
        node_name: pod.node.clone(),
        zone: pod.zone.clone(),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            name: Some(pod.name.clone()),
            namespace: owner.model.metadata.namespace.clone(),
            uid: Some(pod.uid.clone()),
            ..ObjectReference::default()
        }),
        ..endpoint(pod.address)
    }
}
