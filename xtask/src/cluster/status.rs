//! What is told about clusters: a line each for people, everything for programs, and the
//! variables with which a shell or a test uses one.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::daemons;
use super::instance::{Place, REGISTRY, Record};
use super::left::LeftOver;
use super::processes::{self, Shown};

/// Kibibytes in a mebibyte.
const KIB: u64 = 1024;

/// One cluster, as `--output json` shows it.
#[derive(Serialize)]
struct Status {
    name: String,
    running: bool,
    /// What of it is on the machine now: all of it, or what a crash has left.
    found: LeftOver,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<Cluster>,
}

/// How to use a cluster.
#[derive(Serialize)]
struct Cluster {
    kubernetes: String,
    containerd: String,
    kubeconfig: PathBuf,
    containerd_address: PathBuf,
    node_ip: String,
    /// Where the host pushes images.
    registry: String,
    /// The host in their references.
    registry_name: &'static str,
    programs: PathBuf,
    bin: PathBuf,
    logs: PathBuf,
    cdi: PathBuf,
    kubelet: PathBuf,
    policy: PathBuf,
    signatures: PathBuf,
    shim: PathBuf,
    pss_mib: u64,
    processes: Vec<Shown>,
}

// === impl Status ===

impl Status {
    fn of(place: &Place) -> anyhow::Result<Self> {
        // An unreadable record is part of what a crash leaves.
        let record = Record::read(place).ok().flatten();
        let record = record.filter(|record| record.supervisor.is_alive());
        Ok(Self {
            name: place.name.as_str().to_owned(),
            running: record.is_some(),
            found: LeftOver::of(place)?,
            cluster: record.map(|record| Cluster::of(place, record)).transpose()?,
        })
    }

    fn line(&self) -> String {
        match &self.cluster {
            Some(cluster) => format!(
                "{}: running, Kubernetes {}, containerd {}, node {}, {} processes, {} MiB",
                self.name,
                cluster.kubernetes,
                cluster.containerd,
                cluster.node_ip,
                cluster.processes.len(),
                cluster.pss_mib
            ),
            None if self.found.is_empty() => format!("{}: stopped, nothing left", self.name),
            None => format!("{}: stopped, but left {}", self.name, self.found),
        }
    }
}

// === impl Cluster ===

impl Cluster {
    fn of(place: &Place, record: Record) -> anyhow::Result<Self> {
        let processes = processes::shown(place)?;
        let pss: u64 = processes.iter().map(|process| process.pss_kib).sum();
        Ok(Self {
            kubeconfig: place.kubeconfig(),
            containerd_address: place.containerd_socket(),
            node_ip: record.index.node_ip(),
            registry: record.index.registry(),
            registry_name: REGISTRY,
            logs: place.path("log"),
            cdi: place.path("cdi"),
            kubelet: place.path("kubelet"),
            policy: place.path(daemons::POLICY),
            signatures: place.path(daemons::SIGNATURES),
            pss_mib: pss / KIB,
            processes,
            kubernetes: record.kubernetes,
            containerd: record.containerd,
            programs: record.programs,
            bin: record.bin,
            shim: record.shim,
        })
    }
}

/// Print the state of clusters.
pub fn show(places: &[Place], json: bool) -> anyhow::Result<()> {
    let all: Vec<Status> = places.iter().map(Status::of).collect::<anyhow::Result<_>>()?;
    if json {
        println!("{}", serde_json::to_string_pretty(&all)?);
    } else if all.is_empty() {
        println!("no cluster");
    }
    for status in all.iter().filter(|_| !json) {
        println!("{}", status.line());
    }
    Ok(())
}

/// Print a cluster's variables for a shell.
pub fn variables(record: &Record, runs: &Path) -> anyhow::Result<()> {
    let place = Place::new(runs, record.name.clone());
    for (name, value) in pairs(record, &place) {
        println!("export {name}='{}'", value.replace('\'', "'\\''"));
    }
    let bin = record.bin.display();
    println!("export PATH='{bin}':\"$PATH\"");
    Ok(())
}

/// The variables that clients of a cluster read.
pub fn pairs(record: &Record, place: &Place) -> Vec<(&'static str, String)> {
    vec![
        ("WICK_E2E_CLUSTER", record.name.as_str().to_owned()),
        ("KUBECONFIG", place.kubeconfig().display().to_string()),
        ("CONTAINERD_ADDRESS", place.containerd_socket().display().to_string()),
        ("CONTAINERD_NAMESPACE", "k8s.io".to_owned()),
        ("REGISTRY", record.index.registry()),
        ("REGISTRY_NAME", REGISTRY.to_owned()),
        ("NODE_IP", record.index.node_ip()),
    ]
}
