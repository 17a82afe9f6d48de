//! A driver of devices that are claimed, which is dynamic resource allocation. All its devices are the same harmless one.

use std::fs;

use anyhow::Context as _;
use serde_json::{Value, json};
use wick_e2e::cluster::Cluster;
use wick_e2e::kubectl::Namespace;
use wick_e2e::wait::wait;

use super::node::DEVICE;
use super::{END_TIMEOUT, images};

/// The driver's name, and that of everything it needs outside its namespace.
const DRIVER: &str = "dra.wick.test";

/// How many it publishes: one to hold, and then one is left, too few for a claim on both.
pub const DEVICES: usize = 2;

/// The kind of these devices in their CDI specification.
const KIND: &str = "wick.test/claimed";

/// The API of claims, and that of rights.
const CLAIMS: &str = "resource.k8s.io";
const RIGHTS: &str = "rbac.authorization.k8s.io";

/// The driver as vendors deploy it: an ordinary pod with a view of the kubelet's folders, which
/// reads claims and publishes devices.
pub struct Driver<'a> {
    pub cluster: &'a Cluster,
    /// Where its pod is.
    pub space: &'a Namespace,
}

// === impl Driver ===

impl Driver<'_> {
    /// Start it, and wait until its devices are published.
    pub fn start(&self) -> anyhow::Result<()> {
        // Where containerd looks for the kubelet's devices.
        let file = self.cluster.ours()?.cdi.join("claimed.json");
        fs::write(file, specification().to_string())?;
        self.space.apply(&class().to_string())?;
        self.space.apply(&self.objects()?.to_string())?;
        self.published(DEVICES)
    }

    /// Stop it. No claim may be left, or nobody would release it.
    pub fn stop(&self) -> anyhow::Result<()> {
        self.space.run(&["delete", "pod", "driver"])?;
        self.published(0)?;
        let kinds = "deviceclass,clusterrole,clusterrolebinding";
        self.cluster.kubectl.run(&["delete", kinds, DRIVER]).map(drop)
    }

    /// Templates for a claim on one and on all of its devices.
    pub fn templates(&self) -> Value {
        let template = |name: &str, count: usize| {
            let request =
                json!({"name": "any", "exactly": {"deviceClassName": DRIVER, "count": count}});
            json!({"apiVersion": format!("{CLAIMS}/v1"), "kind": "ResourceClaimTemplate",
                "metadata": {"name": name}, "spec": {"spec": {"devices": {"requests": [request]}}}})
        };
        let items = [template("one", 1), template("all", DEVICES)];
        json!({"apiVersion": "v1", "kind": "List", "items": items})
    }

    fn objects(&self) -> anyhow::Result<Value> {
        let rules = json!([
            {"apiGroups": [CLAIMS], "resources": ["resourceclaims"], "verbs": ["get"]},
            {"apiGroups": [CLAIMS], "resources": ["resourceslices"], "verbs": ["create", "delete"]},
        ]);
        let namespace = &self.space.name;
        let account = json!({"kind": "ServiceAccount", "name": "driver", "namespace": namespace});
        let role = json!({"apiGroup": RIGHTS, "kind": "ClusterRole", "name": DRIVER});
        Ok(json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "driver"}},
            {"apiVersion": format!("{RIGHTS}/v1"), "kind": "ClusterRole",
                "metadata": {"name": DRIVER}, "rules": rules},
            {"apiVersion": format!("{RIGHTS}/v1"), "kind": "ClusterRoleBinding",
                "metadata": {"name": DRIVER}, "roleRef": role, "subjects": [account]},
            self.pod()?,
        ]}))
    }

    fn pod(&self) -> anyhow::Result<Value> {
        let image = images::program(self.cluster, "dra-driver")?;
        let kubelet = &self.cluster.ours()?.kubelet;
        // The kubelet connects to the sockets by the paths that the driver knows.
        let folders =
            [("own", kubelet.join("plugins")), ("registry", kubelet.join("plugins_registry"))];
        let mounts =
            folders.each_ref().map(|(name, path)| json!({"name": name, "mountPath": path}));
        let volumes = folders.each_ref().map(
            |(name, path)| json!({"name": name, "hostPath": {"path": path, "type": "Directory"}}),
        );
        let node = json!({"fieldRef": {"fieldPath": "spec.nodeName"}});
        Ok(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "driver"},
            "spec": {
                "serviceAccountName": "driver", "terminationGracePeriodSeconds": 5,
                "containers": [{
                    "name": "driver", "image": image, "imagePullPolicy": "IfNotPresent",
                    "args": [DRIVER, DEVICES.to_string(), KIND, kubelet],
                    "env": [{"name": "NODE_NAME", "valueFrom": node}],
                    "volumeMounts": mounts,
                }],
                "volumes": volumes,
            },
        }))
    }

    /// Wait until so many devices are published.
    fn published(&self, count: usize) -> anyhow::Result<()> {
        let published = wait("the devices", END_TIMEOUT, || {
            let slices = self.cluster.kubectl.get(&["resourceslices"])?.unwrap_or_default();
            let slices = slices["items"].as_array().into_iter().flatten();
            let ours = slices.filter(|slice| slice["spec"]["driver"] == DRIVER);
            let devices = ours.filter_map(|slice| slice["spec"]["devices"].as_array());
            Ok((devices.map(Vec::len).sum::<usize>() == count).then_some(()))
        });
        published.with_context(|| self.space.dump())
    }
}

/// What the devices are in a container: a variable and a device node each.
fn specification() -> Value {
    let device = |at| {
        json!({"name": format!("device-{at}"), "containerEdits": {
            "env": [format!("CLAIMED_{at}=granted")],
            "deviceNodes": [{"path": format!("/dev/claimed/device-{at}"), "hostPath": DEVICE,
                "permissions": "rw"}],
        }})
    };
    let devices: Vec<Value> = (0..DEVICES).map(device).collect();
    json!({"cdiVersion": "0.6.0", "kind": KIND, "devices": devices})
}

/// What claims name: all devices of the driver.
fn class() -> Value {
    let ours = format!("device.driver == '{DRIVER}'");
    json!({"apiVersion": format!("{CLAIMS}/v1"), "kind": "DeviceClass",
        "metadata": {"name": DRIVER}, "spec": {"selectors": [{"cel": {"expression": ours}}]}})
}
