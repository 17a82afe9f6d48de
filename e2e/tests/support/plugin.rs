//! A device plugin: a real kubelet asks it, and it runs as a pod of its own.

use anyhow::Context as _;
use serde_json::{Value, json};
use wick_e2e::cluster::Cluster;
use wick_e2e::kubectl::Namespace;
use wick_e2e::wait::wait;

use super::{END_TIMEOUT, images};

/// Where the kubelet and its plugins meet.
const SOCKETS: &str = "/var/lib/kubelet/device-plugins";

/// The pod's name.
const NAME: &str = "plugin";

/// What a plugin offers.
pub struct Plugin {
    pub resource: &'static str,
    pub devices: u32,
}

// === impl Plugin ===

impl Plugin {
    /// Start it, as vendors deploy theirs: an ordinary pod with a view of the kubelet's folder. Whoever gets a device
    /// gets `allocation`, the fields of the device plugin API's `ContainerAllocateResponse`.
    pub fn start(
        &self,
        cluster: &Cluster,
        space: &Namespace,
        allocation: &Value,
    ) -> anyhow::Result<()> {
        let image = images::program(cluster, "device-plugin")?;
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": NAME},
            "spec": {
                "terminationGracePeriodSeconds": 2,
                "containers": [{
                    "name": NAME, "image": image, "imagePullPolicy": "IfNotPresent",
                    "args": [self.resource, self.devices.to_string(), allocation.to_string()],
                    "volumeMounts": [{"name": "sockets", "mountPath": SOCKETS}],
                }],
                "volumes": [
                    {"name": "sockets", "hostPath": {"path": SOCKETS, "type": "Directory"}},
                ],
            },
        });
        space.apply(&pod.to_string())?;
        self.offered(cluster, space, self.devices)
    }

    /// Stop it, and wait until the node offers nothing of it.
    pub fn stop(&self, cluster: &Cluster, space: &Namespace) -> anyhow::Result<()> {
        space.run(&["delete", "pod", NAME])?;
        self.offered(cluster, space, 0)
    }

    /// Wait until the node offers this many devices.
    fn offered(&self, cluster: &Cluster, space: &Namespace, count: u32) -> anyhow::Result<()> {
        let offered = wait("the devices", END_TIMEOUT, || {
            let nodes = cluster.kubectl.get(&["nodes"])?.context("no nodes")?;
            let found = &nodes["items"][0]["status"]["allocatable"][self.resource];
            Ok((found.as_str().unwrap_or("0") == count.to_string()).then_some(()))
        });
        offered.with_context(|| space.dump())
    }
}
