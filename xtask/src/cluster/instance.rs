//! One cluster: its name, its folder, and the addresses that follow from its index. Pure
//! arithmetic and paths; starts nothing and looks at nothing.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

/// Clusters that can run at once. Each takes one /24 of 10.250.0.0/16, and one /16 for pods
/// and one for Services from 10.100.0.0 on.
pub const MAX_INDEX: u8 = 49;

/// Longest name: the socket of containerd lies below the folder, and the path of a socket
/// has at most 107 bytes.
const MAX_NAME: usize = 24;

/// The node's name, the same everywhere, so that manifests and tests can say it.
pub const NODE: &str = "node";

/// The registry's name in references of images; where it is, containerd's configuration says.
pub const REGISTRY: &str = "registry.local";

/// Folders whose paths containerd, the kubelet and the network plugins have built in. A
/// cluster gets its own of each, so its programs can't see the machine's, nor leave
/// anything there. All are on every machine.
pub const OWN_FOLDERS: [&str; 3] = ["/run", "/var/lib", "/var/log"];

pub const API_PORT: u16 = 6443;
pub const ETCD_PORT: u16 = 2379;
pub const REGISTRY_PORT: u16 = 5000;

/// A cluster's name: what its folder, its cgroups and its interface are called after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name(String);

/// Where a cluster keeps everything. It exists before the cluster has an index.
#[derive(Clone, Debug)]
pub struct Place {
    pub name: Name,
    pub folder: PathBuf,
}

/// Addresses of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index(u8);

/// What `up` writes down about a running cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    pub name: Name,
    pub index: Index,
    /// The process outside the cluster's namespaces that waits for the one inside.
    pub supervisor: Process,
    pub containerd: String,
    pub kubernetes: String,
    /// Folder with `containerd` and `ctr`.
    pub bin: PathBuf,
    /// Folder with the programs for images of tests.
    pub programs: PathBuf,
    /// What containerd runs for pods of the class `wick`.
    pub shim: PathBuf,
}

/// A process that cannot be taken for another with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`: when it started, in ticks since boot.
    pub start: u64,
}

// === impl Name ===

impl Name {
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let fits = (1..=MAX_NAME).contains(&text.len());
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        ensure!(
            fits && text.bytes().all(plain) && !text.starts_with('-'),
            "`{text}` is no name of a cluster: use up to {MAX_NAME} of a-z, 0-9 and -"
        );
        Ok(Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The cgroup of everything, below the root of each hierarchy. Shims and tests make
    /// cgroups called `wick-…` too, and `down` kills what is in this one, so it says whose
    /// it is.
    pub fn cgroup(&self) -> String {
        format!("wick-cluster-{}", self.0)
    }

    /// The alias of the host's interface. Interfaces are found by it, since their names are
    /// too short for a cluster's name.
    pub fn alias(&self) -> String {
        format!("wick cluster {}", self.0)
    }
}

// === impl Place ===

impl Place {
    pub fn new(home: &Path, name: Name) -> Self {
        let folder = home.join(name.as_str());
        Self { name, folder }
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.folder.join(below)
    }

    /// The same as text, for configuration files.
    pub fn text(&self, below: &str) -> String {
        self.path(below).display().to_string()
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.path("conf/admin.conf")
    }

    pub fn containerd_socket(&self) -> PathBuf {
        self.path("containerd.sock")
    }

    /// Where the supervisor takes orders.
    pub fn control_socket(&self) -> PathBuf {
        self.path("control.sock")
    }

    /// What the supervisor may start.
    pub fn plan(&self) -> PathBuf {
        self.path("plan.json")
    }

    pub fn record(&self) -> PathBuf {
        self.path("cluster.json")
    }

    /// What stands in the cluster's mount namespace for a folder of `OWN_FOLDERS`.
    pub fn own(&self, folder: &str) -> PathBuf {
        self.path("own").join(folder.trim_start_matches('/'))
    }
}

// === impl Index ===

impl Index {
    pub fn new(number: u8) -> anyhow::Result<Self> {
        ensure!(number <= MAX_INDEX, "no index above {MAX_INDEX}");
        Ok(Self(number))
    }

    /// The host's end of the cable into the cluster.
    pub fn interface(self) -> String {
        format!("wick-c{}", self.0)
    }

    /// The host's address towards the cluster.
    pub fn host_ip(self) -> String {
        format!("10.250.{}.1", self.0)
    }

    /// The node's address: the API server, the registry and DNS listen here.
    pub fn node_ip(self) -> String {
        format!("10.250.{}.2", self.0)
    }

    pub fn pod_cidr(self) -> String {
        format!("10.{}.0.0/16", 100 + u16::from(self.0))
    }

    /// What the node's pods get out of `pod_cidr`.
    pub fn node_cidr(self) -> String {
        format!("10.{}.0.0/24", 100 + u16::from(self.0))
    }

    pub fn service_cidr(self) -> String {
        format!("10.{}.0.0/16", 150 + u16::from(self.0))
    }

    /// The address of the Service `kubernetes`, the first of `service_cidr`.
    pub fn api_service_ip(self) -> String {
        format!("10.{}.0.1", 150 + u16::from(self.0))
    }

    pub fn api_url(self) -> String {
        format!("https://{}:{API_PORT}", self.node_ip())
    }

    /// Where images are pushed to from the host.
    pub fn registry(self) -> String {
        format!("{}:{REGISTRY_PORT}", self.node_ip())
    }
}

// === impl Record ===

impl Record {
    /// The record of a cluster, if there is one.
    pub fn read(place: &Place) -> anyhow::Result<Option<Self>> {
        let path = place.record();
        if !path.exists() {
            return Ok(None);
        }
        let bytes = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let record = serde_json::from_slice(&bytes);
        record.map(Some).with_context(|| format!("{} is no record", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_short() {
        for good in ["dev", "e2e-shim", "0", "a23456789012345678901234"] {
            assert!(Name::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "A", "a/b", "..", "a b", "a2345678901234567890123456"] {
            assert!(Name::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_two_indexes_share_an_address() -> anyhow::Result<()> {
        let mut seen = std::collections::BTreeSet::new();
        for number in 0..=MAX_INDEX {
            let index = Index::new(number)?;
            assert!(index.interface().len() < 16, "an interface's name has at most 15 bytes");
            for cidr in [index.node_ip(), index.pod_cidr(), index.service_cidr()] {
                assert!(cidr.split('.').next_back().is_some() && seen.insert(cidr));
            }
        }
        assert!(Index::new(MAX_INDEX + 1).is_err());
        Ok(())
    }
}
