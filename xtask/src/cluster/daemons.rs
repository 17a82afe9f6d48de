//! The programs of a cluster, in the order in which they start, with their arguments. Pure:
//! `up` decides when each starts, and `supervise` starts it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::build::Binaries;
use super::config;
use super::instance::{API_PORT, ETCD_PORT, Index, NODE, Place};

/// Who must have signed what: a file that tests write anew, and the store of signatures.
pub const POLICY: &str = "wick/policy.toml";
pub const SIGNATURES: &str = "wick/signatures";

/// Marks every process of a cluster in its environment, with the cluster's folder. A person
/// who works with a cluster has no reason to set it, so `down` can trust it.
pub const MARK: &str = "WICK_CLUSTER_MEMBER";

/// Largest request that etcd takes, as the API server's own documentation advises.
const ETCD_QUOTA: &str = "268435456";

/// Everything that the supervisor may start, and what it prepares before.
#[derive(Serialize, Deserialize)]
pub struct Plan {
    /// Folders of the machine that the cluster gets its own of: there, and what is put there.
    pub own_folders: Vec<(PathBuf, PathBuf)>,
    /// Folders that the supervisor enters by writing its number to their `cgroup.procs`.
    pub cgroups: Vec<PathBuf>,
    pub control: PathBuf,
    pub logs: PathBuf,
    pub daemons: Vec<Daemon>,
}

/// A program that runs until the cluster stops.
#[derive(Serialize, Deserialize)]
pub struct Daemon {
    pub name: String,
    pub program: PathBuf,
    pub args: Vec<String>,
    pub env: BTreeMap<String, String>,
}

/// What the daemons depend on beside the place and its addresses.
pub struct Inputs<'a> {
    pub place: &'a Place,
    pub index: Index,
    pub binaries: &'a Binaries,
    /// The `wick` that the shim starts as its worker.
    pub worker: &'a Path,
    pub backends: &'a Path,
    /// More variables for containerd.
    pub env: &'a [(String, String)],
}

/// All daemons in the order of their start.
pub fn all(inputs: &Inputs<'_>) -> Vec<Daemon> {
    vec![
        etcd(inputs),
        containerd(inputs),
        registry(inputs),
        apiserver(inputs),
        kube(inputs, "kube-controller-manager", controllers(inputs)),
        kube(
            inputs,
            "kube-scheduler",
            vec![
                flag("kubeconfig", inputs.place.kubeconfig().display()),
                flag("leader-elect", false),
            ],
        ),
        kube(
            inputs,
            "kubelet",
            vec![
                flag("kubeconfig", inputs.place.text("conf/kubelet.conf")),
                flag("config", inputs.place.text("conf/kubelet.yaml")),
                flag("hostname-override", NODE),
                flag("root-dir", inputs.place.text("kubelet")),
                flag("node-ip", inputs.index.node_ip()),
            ],
        ),
        kube(inputs, "kube-proxy", vec![flag("config", inputs.place.text("conf/proxy.yaml"))]),
        coredns(inputs),
    ]
}

fn etcd(inputs: &Inputs<'_>) -> Daemon {
    let url = format!("http://127.0.0.1:{ETCD_PORT}");
    kube(
        inputs,
        "etcd",
        vec![
            flag("data-dir", inputs.place.text("etcd")),
            flag("listen-client-urls", &url),
            flag("advertise-client-urls", &url),
            // A member alone still wants an address for others.
            flag("listen-peer-urls", "http://127.0.0.1:2380"),
            flag("quota-backend-bytes", ETCD_QUOTA),
            // What a crash of the machine loses here is only a test.
            flag("unsafe-no-fsync", true),
            flag("log-level", "warn"),
        ],
    )
}

fn containerd(inputs: &Inputs<'_>) -> Daemon {
    let Inputs { place, binaries, worker, backends, .. } = inputs;
    let mut env = environment(inputs);
    for (name, value) in [
        ("WICK_WORKER", worker.display().to_string()),
        ("WICK_CACHE", place.text("wick/cache")),
        ("WICK_BACKENDS", backends.display().to_string()),
        ("WICK_POLICY", place.text(POLICY)),
        ("WICK_SIGNATURES", place.text(SIGNATURES)),
    ] {
        env.insert(name.to_owned(), value);
    }
    env.extend(inputs.env.iter().cloned());
    Daemon {
        name: "containerd".to_owned(),
        program: binaries.containerd.join("containerd"),
        args: vec!["--config".to_owned(), place.text("conf/containerd.toml")],
        env,
    }
}

fn registry(inputs: &Inputs<'_>) -> Daemon {
    Daemon {
        name: "registry".to_owned(),
        program: inputs.binaries.registry(),
        args: vec!["serve".to_owned(), inputs.place.text("conf/registry.yaml")],
        env: environment(inputs),
    }
}

fn coredns(inputs: &Inputs<'_>) -> Daemon {
    Daemon {
        name: "coredns".to_owned(),
        program: inputs.binaries.coredns.join("coredns"),
        args: vec!["-conf".to_owned(), inputs.place.text("conf/Corefile")],
        env: environment(inputs),
    }
}

fn apiserver(inputs: &Inputs<'_>) -> Daemon {
    let Inputs { place, index, .. } = inputs;
    let pki = |file: &str| place.path("pki").join(file).display().to_string();
    kube(
        inputs,
        "kube-apiserver",
        vec![
            flag("etcd-servers", format_args!("http://127.0.0.1:{ETCD_PORT}")),
            flag("advertise-address", index.node_ip()),
            flag("bind-address", "0.0.0.0"),
            flag("secure-port", API_PORT),
            flag("client-ca-file", pki("ca.crt")),
            flag("tls-cert-file", pki("apiserver.crt")),
            flag("tls-private-key-file", pki("apiserver.key")),
            flag("kubelet-client-certificate", pki("admin.crt")),
            flag("kubelet-client-key", pki("admin.key")),
            // The kubelet's name is in no DNS.
            flag("kubelet-preferred-address-types", "InternalIP"),
            flag("service-account-key-file", pki("accounts.key")),
            flag("service-account-signing-key-file", pki("accounts.key")),
            flag("service-account-issuer", "https://kubernetes.default.svc.cluster.local"),
            flag("service-cluster-ip-range", index.service_cidr()),
            flag("authorization-mode", "Node,RBAC"),
            flag("allow-privileged", true),
        ],
    )
}

fn controllers(inputs: &Inputs<'_>) -> Vec<String> {
    let Inputs { place, index, .. } = inputs;
    vec![
        flag("kubeconfig", place.kubeconfig().display()),
        flag("service-account-private-key-file", place.text("pki/accounts.key")),
        flag("root-ca-file", place.text("pki/ca.crt")),
        flag("cluster-cidr", index.pod_cidr()),
        // The node's part is in the network plugin's configuration from the start.
        flag("allocate-node-cidrs", false),
        flag("leader-elect", false),
        flag("use-service-account-credentials", false),
    ]
}

fn kube(inputs: &Inputs<'_>, name: &str, flags: Vec<String>) -> Daemon {
    let mut args = vec![name.to_owned()];
    args.extend(flags);
    Daemon {
        name: name.to_owned(),
        program: inputs.binaries.kube.join("kube"),
        args,
        env: environment(inputs),
    }
}

/// The whole environment of a daemon. Nothing of the caller's gets into a cluster but the
/// search path, or a proxy that is set there would.
fn environment(inputs: &Inputs<'_>) -> BTreeMap<String, String> {
    BTreeMap::from([
        (MARK.to_owned(), inputs.place.folder.display().to_string()),
        ("PATH".to_owned(), inputs.binaries.path()),
    ])
}

fn flag(name: &str, value: impl std::fmt::Display) -> String {
    format!("--{name}={value}")
}

/// The manifests that a new cluster gets: the class that pods of wick name.
pub fn manifests() -> String {
    "apiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata:\n  name: wick\nhandler: wick\n"
        .to_owned()
}

/// Images that a new cluster gets, by name and by the program that each is.
pub fn images(binaries: &Binaries) -> [(&'static str, PathBuf); 1] {
    [(config::PAUSE, binaries.programs.join("pause"))]
}
