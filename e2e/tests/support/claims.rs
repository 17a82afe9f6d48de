//! Persistent volume claims for folders of the node.

use serde_json::{Value, json};
use wick_e2e::cluster::Cluster;
use wick_e2e::kubectl::Namespace;

use super::node::Folder;

/// A claim for a folder. Its volume belongs to no namespace, and [`Claims::delete`] deletes it.
pub struct Claims<'a> {
    cluster: &'a Cluster,
    space: Namespace,
    volumes: Vec<String>,
}

// === impl Claims ===

impl<'a> Claims<'a> {
    pub fn new(cluster: &'a Cluster, space: Namespace) -> Self {
        Self { cluster, space, volumes: Vec::new() }
    }

    pub fn space(&self) -> &Namespace {
        &self.space
    }

    /// Make the claim `name` for a folder.
    pub fn add(&mut self, name: &str, folder: &Folder) -> anyhow::Result<()> {
        let volume = format!("{}-{name}", self.space.name);
        let spec = json!({
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany"],
            "storageClassName": "", "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": folder.path, "type": "Directory"},
        });
        self.space.apply(&object("PersistentVolume", &volume, spec))?;
        let spec = json!({
            "storageClassName": "", "volumeName": volume, "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": "1Gi"}},
        });
        self.volumes.push(volume);
        self.space.apply(&object("PersistentVolumeClaim", name, spec))
    }

    /// Delete what is in the namespace, and the volumes.
    pub fn delete(mut self) -> anyhow::Result<()> {
        self.space.run(&["delete", "all", "--all", "--timeout=90s"])?;
        std::mem::take(&mut self.volumes).iter().try_for_each(|volume| self.forget(volume))
    }

    fn forget(&self, volume: &str) -> anyhow::Result<()> {
        let args = ["delete", "persistentvolume", volume, "--wait=false"];
        self.cluster.kubectl.run(&args).map(drop)
    }
}

impl Drop for Claims<'_> {
    fn drop(&mut self) {
        for volume in std::mem::take(&mut self.volumes) {
            // The test has failed, and its own error is the one to see.
            self.forget(&volume).ok();
        }
    }
}

/// A volume's source: a claim of this name.
pub fn claimed(name: &str) -> Value {
    json!({"persistentVolumeClaim": {"claimName": name}})
}

fn object(kind: &str, name: &str, spec: Value) -> String {
    json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "spec": spec}).to_string()
}
