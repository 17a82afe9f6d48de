//! What the fields of a pod's spec come to: users and rights, resources, the host's network,
//! devices and annotations.

mod support;

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use support::node::{DEVICE, Folder, Process};
use support::{END_TIMEOUT, PORT, Pod, images, outputs, status};
use wick_e2e::cluster::{Cluster, xtask};
use wick_e2e::http;
use wick_e2e::image::{Built, digest};
use wick_e2e::registry;
use wick_e2e::wait::wait;

/// What Pod Security's `restricted` insists on, for a container.
fn restricted() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]},
    })
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_namespace_that_enforces_restricted_takes_packages() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("spec")?;
    let enforce = "pod-security.kubernetes.io/enforce=restricted";
    cluster.kubectl.run(&["label", "namespace", &space.name, enforce])?;
    let image = images::filetype(&cluster)?;
    // The namespace means it.
    let refused = space.apply(&Pod::new("loose", image).yaml()).err().context("it was let in")?;
    assert!(format!("{refused:#}").contains("restricted"), "{refused:#}");
    let pod = Pod::new("model", image)
        .probed()
        .spec(
            "securityContext",
            json!({
                "runAsNonRoot": true, "runAsUser": 12345, "runAsGroup": 23456, "fsGroup": 34567,
                "supplementalGroups": [45678], "seccompProfile": {"type": "RuntimeDefault"},
            }),
        )
        .container("securityContext", restricted());
    space.apply(&pod.yaml())?;
    space.ready_pod("model")?;
    let worker = Process::of(&cluster, &space, "model", "main")?;
    for (field, wanted) in [
        ("Uid", "12345 12345 12345 12345"),
        ("Gid", "23456 23456 23456 23456"),
        ("CapEff", "0000000000000000"),
        ("CapBnd", "0000000000000000"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
    ] {
        assert_eq!(worker.status(field)?, wanted, "{field}");
    }
    let groups = worker.status("Groups")?;
    for group in ["34567", "45678"] {
        assert!(groups.split(' ').any(|known| known == group), "{groups}");
    }
    space.delete()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_volume_belongs_to_the_group_of_the_pod() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("spec")?;
    let runs: [(&str, &[&str]); 2] =
        [("volume", &["write", "/job/mine", "x"]), ("image", &["write", "/mine", "x"])];
    let group = json!({"runAsUser": 12345, "runAsGroup": 23456, "fsGroup": 34567});
    let pod = Pod::of_runs("writer", images::tool(&cluster)?, &runs)
        .spec("securityContext", group)
        .shared("work", "/job", json!({"emptyDir": {}}));
    space.apply(&pod.yaml())?;
    let [volume, image] = outputs(&space, "writer", ["volume", "image"])?;
    assert!(!volume.contains("refused"), "{volume}");
    // Also without `readOnlyRootFilesystem`.
    assert!(image.contains("refused"), "{image}");
    space.delete()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn what_a_package_can_not_have_is_refused_by_name_in_the_events() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("spec")?;
    let image = images::tool(&cluster)?;
    let unknown = Pod::new("unknown", image).annotation("wick.dev/colour", "green");
    let wrong = Pod::new("wrong", image).annotation("wick.dev/drain", "soon");
    let adds = Pod::new("adds", image)
        .container("securityContext", json!({"capabilities": {"add": ["SYS_ADMIN"]}}));
    let typing = Pod::new("typing", image).container("tty", true.into());
    let privileged =
        Pod::new("privileged", image).container("securityContext", json!({"privileged": true}));
    let mapped = Pod::new("mapped", image).spec("hostUsers", false.into());
    for pod in [unknown, wrong, adds, typing, privileged, mapped] {
        space.apply(&pod.once().args(&["0"]).yaml())?;
    }
    for words in [
        ["wick.dev/colour", "is not known; there are wick.dev/addr"],
        ["wick.dev/drain", "`soon` is not a duration"],
        ["process.capabilities", "can't get SYS_ADMIN"],
        ["process.terminal", "leave out `tty`"],
        ["process.capabilities", "more: leave out `privileged`"],
        // By the kubelet, which asks containerd, or by the shim.
        ["FailedCreatePodSandBox", "user namespaces"],
    ] {
        support::event(&space, &words)?;
    }
    space.delete()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_pod_in_the_hosts_network_serves_on_the_nodes_address() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("spec")?;
    let port = 18_080;
    let probe = json!({"httpGet": {"path": "/v2/health/ready", "port": port},
        "periodSeconds": 1});
    let pod = Pod::new("host", images::filetype(&cluster)?)
        .spec("hostNetwork", true.into())
        .annotation("wick.dev/addr", &format!("0.0.0.0:{port}"))
        .container("readinessProbe", probe);
    space.apply(&pod.yaml())?;
    let ip = space.ready_pod("host")?;
    assert_eq!(ip.to_string(), cluster.ours()?.node_ip);
    assert_eq!(support::classify((ip, port).into(), "import os\n\nprint(os.name)\n")?, "python");
    space.delete()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn limits_are_in_the_control_group_and_a_resize_changes_them_in_place() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("spec")?;
    let resources = |memory: &str, cpu: &str| {
        json!({"limits": {"memory": memory, "cpu": cpu},
            "requests": {"memory": memory, "cpu": cpu}})
    };
    let pod = Pod::new("model", images::filetype(&cluster)?)
        .probed()
        .container("resources", resources("256Mi", "500m"));
    space.apply(&pod.yaml())?;
    let ip = space.ready_pod("model")?;
    let worker = Process::of(&cluster, &space, "model", "main")?;
    assert_eq!((worker.memory_limit()?, worker.cpu_limit()?), (256 << 20, 500));
    let patch = json!({"spec": {"containers": [
        {"name": "main", "resources": resources("320Mi", "750m")}]}});
    let patch = patch.to_string();
    space.run(&["patch", "pod", "model", "--subresource", "resize", "--patch", &patch])?;
    let resized = wait("the resize", END_TIMEOUT, || {
        let limits = (worker.memory_limit()?, worker.cpu_limit()?);
        Ok((limits == (320 << 20, 750)).then_some(()))
    });
    resized.map_err(|error| anyhow::anyhow!("{error:#}\n{}", space.dump()))?;
    let state = space.wait("pod/model", "the new limits", END_TIMEOUT, |pod| {
        let status = status(pod, "main");
        let known = status["resources"]["limits"]["memory"] == "320Mi";
        Ok(known.then(|| status.clone()))
    })?;
    // The same process as before, and it goes on.
    assert_eq!(state["restartCount"], 0);
    assert_eq!(Process::of(&cluster, &space, "model", "main")?.pid, worker.pid);
    assert_eq!(http::get((ip, PORT).into(), "/v2/health/ready")?.status, 200);
    space.delete()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn the_class_adds_its_overhead_to_the_pod_and_its_control_group() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("spec")?;
    let class = include_str!("../../deploy/shim/runtimeclass.yaml");
    // Beside the class of the other tests, which may be the cluster's own.
    let class = class.replace("\n  name: wick\n", "\n  name: wick-measured\n");
    cluster.kubectl.apply("default", &class)?;
    let pod = Pod::new("model", images::filetype(&cluster)?)
        .probed()
        .memory("256Mi")
        .spec("runtimeClassName", "wick-measured".into());
    space.apply(&pod.yaml())?;
    space.ready_pod("model")?;
    let pod = space.get("pod/model")?.context("no pod")?;
    let overhead = pod["spec"]["overhead"]["memory"].as_str().context("no overhead")?;
    let mib: u64 = overhead.strip_suffix("Mi").context("no Mi")?.parse()?;
    ensure!(mib > 0, "{overhead}");
    let worker = Process::of(&cluster, &space, "model", "main")?;
    assert_eq!(worker.memory_limit()?, 256 << 20);
    assert_eq!(worker.pod_memory_limit()?, (256 + mib) << 20);
    space.delete()?;
    cluster.kubectl.run(&["delete", "runtimeclass", "wick-measured"]).map(drop)
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn an_artifact_of_the_cncf_is_pulled_and_misses_its_file() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("spec")?;
    let wasm = fs::read(wick_e2e::package::guest("tool")?)?;
    let config = json!({"os": "wasip2", "architecture": "wasm",
        "layerDigests": [digest(&wasm)], "created": "2026-01-01T00:00:00Z"});
    let config = serde_json::to_vec(&config)?;
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.wasm.config.v0+json",
            "digest": digest(&config), "size": config.len()},
        "layers": [{"mediaType": "application/wasm",
            "digest": digest(&wasm), "size": wasm.len()}],
    });
    let reference = format!("{}/tests/artifact:1", cluster.registry_name()?);
    let manifest = serde_json::to_vec(&manifest)?;
    let artifact = Built { reference: reference.clone(), manifest, blobs: vec![config, wasm] };
    registry::push(cluster.ours()?.registry, &artifact)?;
    let with = Pod::new("with", &reference).once().container("command", json!(["/app.wasm"]));
    space.apply(&with.yaml())?;
    space.apply(&Pod::new("without", &reference).once().yaml())?;
    // containerd unpacks only tars: the layer stays in its store, where no shim sees it.
    let state = support::ended(&space, "with")?;
    assert_eq!(state["exitCode"], 65, "{state}");
    let message = state["message"].as_str().context("no message")?;
    assert!(message.contains("app.wasm") && message.contains("missing"), "{message}");
    support::event(&space, &["no command specified"])?;
    space.delete()
}

/// Run the tool with a device of CDI, as `ctr` in the cluster's namespaces; `before` is a flag
/// of `ctr run`. The kubelet asks for such devices on behalf of device plugins and resource
/// claims only, and a test has neither.
fn run_with_device(
    cluster: &Cluster,
    before: &str,
    id: &str,
    args: &[&str],
) -> anyhow::Result<String> {
    let image = images::tool(cluster)?;
    let shim = cluster.ours()?.shim.display().to_string();
    let mut words = vec!["run", before, "--runtime", &shim, "--device", "wick.test/harmless=one"];
    words.extend([image, id, "/app.wasm"]);
    words.extend(args);
    ctr(cluster, &words)
}

/// containerd's client inside the cluster's namespaces.
fn ctr(cluster: &Cluster, args: &[&str]) -> anyhow::Result<String> {
    let ours = cluster.ours()?;
    let program = ours.bin.join("ctr").display().to_string();
    let address = ours.containerd_address.display().to_string();
    let mut words = vec!["cluster", "exec", &ours.name, &program, "--address", &address];
    words.extend(["--namespace", "k8s.io"]);
    words.extend(args);
    xtask(&words)
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_device_of_cdi_is_there_with_its_variable_and_its_mount() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let driver = Folder::new(&cluster, "cdi")?;
    driver.write("about", "from the driver")?;
    let number = fs::metadata(DEVICE).with_context(|| format!("no {DEVICE}"))?.rdev();
    let specs = Folder::of_run(&cluster, "cdi")?;
    let spec = json!({
        "cdiVersion": "0.6.0", "kind": "wick.test/harmless",
        "devices": [{"name": "one", "containerEdits": {
            "env": ["HARMLESS=granted"],
            "deviceNodes": [{"path": "/dev/harmless/one", "hostPath": DEVICE,
                "permissions": "rw"}],
            "mounts": [{"hostPath": driver.path, "containerPath": "/driver",
                "options": ["ro", "rbind"]}],
        }}],
    });
    specs.write("harmless.json", spec.to_string())?;
    let name = |what: &str| format!("cdi-{what}-{}", std::process::id());
    let env = run_with_device(&cluster, "--rm", &name("env"), &["env"])?;
    assert!(env.contains("HARMLESS=granted"), "{env}");
    let about = run_with_device(&cluster, "--rm", &name("cat"), &["cat", "/driver/about"])?;
    assert!(about.contains("from the driver"), "{about}");
    let id = name("dev");
    run_with_device(&cluster, "--detach", &id, &["print", "here"])?;
    let process = Process::by_id(&id)?;
    let node = fs::metadata(process.inside("/dev/harmless/one"));
    let devices = process.devices()?;
    ctr(&cluster, &["tasks", "rm", "--force", &id])?;
    ctr(&cluster, &["containers", "rm", &id])?;
    let node = node.context("the worker has no such device")?;
    ensure!(node.file_type().is_char_device() && node.rdev() == number, "{node:?}");
    if let Some(devices) = devices {
        let (major, minor) = ((number >> 8) & 0xfff, number & 0xff);
        let line = format!("c {major}:{minor} rw");
        assert!(devices.lines().any(|known| known == line), "{line}: {devices}");
        assert!(!devices.contains("a *:* rwm"), "everything is allowed: {devices}");
    }
    Ok(())
}
