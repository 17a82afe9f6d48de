//! Configuration files of a cluster's programs, as text. Pure: takes a place and addresses,
//! returns what is to be written where.

use std::path::Path;

use super::instance::{Index, Place, REGISTRY_PORT};

/// Pods that a node may have; tests of density go above the usual 110.
const MAX_PODS: u16 = 150;

/// The image that keeps a pod's namespaces.
pub const PAUSE: &str = "docker.io/local/pause:1";

/// What the files depend on beside the cluster.
pub struct Inputs<'a> {
    pub place: &'a Place,
    pub index: Index,
    /// Folder of network plugins.
    pub cni: &'a Path,
    pub shim: &'a Path,
    /// Major version of containerd, which decides the format of its configuration.
    pub containerd: u32,
}

/// Every file, by its path below the cluster's folder.
pub fn files(inputs: &Inputs<'_>) -> Vec<(&'static str, String)> {
    let registry = inputs.index.registry();
    vec![
        ("conf/containerd.toml", containerd(inputs)),
        ("conf/certs.d/registry.local/hosts.toml", hosts(&registry)),
        ("conf/cni/10-wick.conflist", cni(inputs)),
        ("conf/kubelet.yaml", kubelet(inputs)),
        ("conf/proxy.yaml", proxy(inputs)),
        ("conf/Corefile", corefile(inputs)),
        ("conf/registry.yaml", registry_config(inputs)),
        // Pods ask CoreDNS only; what it does not know does not exist.
        ("conf/resolv.conf", format!("nameserver {}\n", inputs.index.node_ip())),
    ]
}

fn containerd(inputs: &Inputs<'_>) -> String {
    let place = inputs.place;
    let head = format!(
        "root = \"{root}\"\nstate = \"{state}\"\noom_score = 0\n\n\
         [grpc]\naddress = \"{socket}\"\n",
        root = place.text("containerd/root"),
        state = place.text("containerd/state"),
        socket = place.containerd_socket().display(),
    );
    let plugins = if inputs.containerd == 1 { plugins_1(inputs) } else { plugins_2(inputs) };
    head_version(inputs.containerd, &head) + &plugins
}

fn head_version(major: u32, head: &str) -> String {
    format!("version = {}\n{head}", if major == 1 { 2 } else { 3 })
}

/// Plugins of containerd 2.
fn plugins_2(inputs: &Inputs<'_>) -> String {
    let place = inputs.place;
    let runtime = "io.containerd.cri.v1.runtime";
    let images = "io.containerd.cri.v1.images";
    format!(
        "\n[plugins.\"{images}\"]\nsnapshotter = \"overlayfs\"\n\
         [plugins.\"{images}\".pinned_images]\nsandbox = \"{PAUSE}\"\n\
         [plugins.\"{images}\".registry]\nconfig_path = \"{certs}\"\n\
         \n[plugins.\"{runtime}\"]\n{common}{tables}\
         [plugins.\"{runtime}\".cni]\nbin_dirs = [\"{cni}\"]\nconf_dir = \"{conf}\"\n",
        certs = place.text("conf/certs.d"),
        common = runtime_options(place),
        tables = runtime_tables(runtime, inputs.shim),
        cni = inputs.cni.display(),
        conf = place.text("conf/cni"),
    )
}

/// Plugins of containerd 1.7, where images and pods are one.
fn plugins_1(inputs: &Inputs<'_>) -> String {
    let place = inputs.place;
    let cri = "io.containerd.grpc.v1.cri";
    format!(
        "\n[plugins.\"{cri}\"]\nsandbox_image = \"{PAUSE}\"\n{common}\
         [plugins.\"{cri}\".containerd]\nsnapshotter = \"overlayfs\"\n{tables}\
         [plugins.\"{cri}\".registry]\nconfig_path = \"{certs}\"\n\
         [plugins.\"{cri}\".cni]\nbin_dir = \"{cni}\"\nconf_dir = \"{conf}\"\n",
        common = runtime_options(place),
        tables = runtime_tables(cri, inputs.shim),
        certs = place.text("conf/certs.d"),
        cni = inputs.cni.display(),
        conf = place.text("conf/cni"),
    )
}

/// A machine without CAP_SYS_RESOURCE refuses the scores below zero that the kubelet wants
/// for pods, hence the first option.
fn runtime_options(place: &Place) -> String {
    format!(
        "restrict_oom_score_adj = true\nnetns_mounts_under_state_dir = true\n\
         enable_cdi = true\ncdi_spec_dirs = [\"{}\"]\n",
        place.text("cdi")
    )
}

fn runtime_tables(plugin: &str, shim: &Path) -> String {
    format!(
        "[plugins.\"{plugin}\".containerd.runtimes.runc]\n\
         runtime_type = \"io.containerd.runc.v2\"\n\
         [plugins.\"{plugin}\".containerd.runtimes.wick]\n\
         runtime_type = \"io.containerd.wick.v1\"\nruntime_path = \"{shim}\"\n\
         pod_annotations = [\"wick.dev/*\"]\ncontainer_annotations = [\"wick.dev/*\"]\n",
        shim = shim.display(),
    )
}

fn hosts(registry: &str) -> String {
    format!(
        "server = \"http://{registry}\"\n\n[host.\"http://{registry}\"]\n\
             capabilities = [\"pull\", \"resolve\", \"push\"]\n"
    )
}

/// Point-to-point links, every packet routed: no bridge, so no packet between two pods
/// leaves the path that kube-proxy's rules are on, and nothing is masqueraded, because the
/// host has a route to the pods.
fn cni(inputs: &Inputs<'_>) -> String {
    let conflist = serde_json::json!({
        "cniVersion": "1.0.0",
        "name": "wick",
        "plugins": [
            {
                "type": "ptp",
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{ "subnet": inputs.index.node_cidr() }]],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    });
    format!("{conflist:#}\n")
}

fn kubelet(inputs: &Inputs<'_>) -> String {
    let place = inputs.place;
    let config = serde_json::json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": false },
            "x509": { "clientCAFile": place.text("pki/ca.crt") },
        },
        "authorization": { "mode": "AlwaysAllow" },
        "containerRuntimeEndpoint":
            format!("unix://{}", place.containerd_socket().display()),
        "tlsCertFile": place.text("pki/kubelet.crt"),
        "tlsPrivateKeyFile": place.text("pki/kubelet.key"),
        // systemd is not needed, and cgroup v1 is as good as v2.
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", inputs.place.name.cgroup()),
        "failCgroupV1": false,
        "failSwapOn": false,
        "clusterDomain": "cluster.local",
        "clusterDNS": [inputs.index.node_ip()],
        "resolvConf": place.text("conf/resolv.conf"),
        "podLogsDir": place.text("pods"),
        "volumePluginDir": place.text("volume-plugins"),
        "staticPodPath": place.text("static-pods"),
        "maxPods": MAX_PODS,
        // A machine that runs tests is nearly full at times; that is no reason to evict.
        "evictionHard": {
            "nodefs.available": "1%", "imagefs.available": "1%", "memory.available": "50Mi",
        },
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "serializeImagePulls": false,
        "registryPullQPS": 0,
        // 0 would be the client library's own five a second, and a hundred pods have hundreds.
        "eventRecordQPS": 1000,
        "eventBurst": 2000,
        "nodeStatusUpdateFrequency": "5s",
        // Below zero is refused without CAP_SYS_RESOURCE.
        "oomScoreAdj": 0,
    });
    format!("{config:#}\n")
}

fn proxy(inputs: &Inputs<'_>) -> String {
    let config = serde_json::json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": { "kubeconfig": inputs.place.kubeconfig() },
        "clusterCIDR": inputs.index.pod_cidr(),
        "hostnameOverride": super::instance::NODE,
        "mode": "iptables",
        "oomScoreAdj": 0,
        // The kernel's table is the machine's own affair, and may refuse to be resized.
        "conntrack": {
            "maxPerCore": 0, "min": 0,
            "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s",
        },
        // Endpoints that come and go are what the tests wait for.
        "iptables": { "minSyncPeriod": "100ms" },
    });
    format!("{config:#}\n")
}

fn corefile(inputs: &Inputs<'_>) -> String {
    format!(
        ".:53 {{\n    bind {node}\n    errors\n    ready {node}:8181\n    \
         kubernetes cluster.local in-addr.arpa {{\n        kubeconfig {kubeconfig} wick\n        \
         pods insecure\n        ttl 5\n    }}\n    cache 5\n}}\n",
        node = inputs.index.node_ip(),
        kubeconfig = inputs.place.kubeconfig().display(),
    )
}

fn registry_config(inputs: &Inputs<'_>) -> String {
    let config = serde_json::json!({
        "version": "0.1",
        "log": { "level": "warn", "accesslog": { "disabled": true } },
        "storage": {
            "filesystem": { "rootdirectory": inputs.place.text("registry") },
            "delete": { "enabled": true },
        },
        "http": { "addr": format!("{}:{REGISTRY_PORT}", inputs.index.node_ip()) },
    });
    format!("{config:#}\n")
}

#[cfg(test)]
mod tests {
    use super::super::instance::{Name, REGISTRY};
    use super::*;

    fn check(major: u32) -> anyhow::Result<toml::Table> {
        let place = Place::new(Path::new("/state"), Name::parse("dev")?);
        let inputs = Inputs {
            place: &place,
            index: Index::new(3)?,
            cni: Path::new("/cni"),
            shim: Path::new("/shim"),
            containerd: major,
        };
        let files = files(&inputs);
        let hosts = format!("conf/certs.d/{REGISTRY}/hosts.toml");
        assert!(files.iter().any(|(path, _)| *path == hosts));
        for (path, text) in &files {
            if path.ends_with(".yaml") || path.ends_with(".conflist") {
                serde_json::from_str::<serde_json::Value>(text)?;
            }
            if path.ends_with(".toml") {
                text.parse::<toml::Table>()?;
            }
        }
        Ok(files[0].1.parse()?)
    }

    #[test]
    fn both_formats_of_containerd_name_the_shim() -> anyhow::Result<()> {
        for (major, plugin) in
            [(1, "io.containerd.grpc.v1.cri"), (2, "io.containerd.cri.v1.runtime")]
        {
            let config = check(major)?;
            let wick = &config["plugins"][plugin]["containerd"]["runtimes"]["wick"];
            assert_eq!(wick["runtime_path"].as_str(), Some("/shim"));
            assert_eq!(config["grpc"]["address"].as_str(), Some("/state/dev/containerd.sock"));
        }
        Ok(())
    }
}
