//! Devices by claims, which is dynamic resource allocation: a real scheduler allocates what a real
//! driver has published, and a real kubelet asks that driver, a pod of its own, how a container
//! gets it.

mod support;

use std::fs;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use support::node::{DEVICE, Process};
use support::{END_TIMEOUT, Pod, container, images, outputs};
use wick_e2e::cluster::Cluster;
use wick_e2e::kubectl::Namespace;
use wick_e2e::wait::wait;

/// The driver's name, and that of everything it needs outside its namespace.
const DRIVER: &str = "dra.wick.test";

/// How many it publishes: one to hold, and then one is left, too few for a claim on both.
const DEVICES: usize = 2;

/// The kind of these devices in their CDI specification.
const KIND: &str = "wick.test/claimed";

/// The API of claims, and that of rights.
const CLAIMS: &str = "resource.k8s.io";
const RIGHTS: &str = "rbac.authorization.k8s.io";

/// The driver as vendors deploy it: an ordinary pod with a view of the kubelet's folders, which
/// reads claims and publishes devices.
fn driver(cluster: &Cluster, space: &Namespace) -> anyhow::Result<Value> {
    let image = images::program(cluster, "dra-driver")?;
    let kubelet = &cluster.ours()?.kubelet;
    // The kubelet connects to the sockets by the paths that the driver knows.
    let folders =
        [("own", kubelet.join("plugins")), ("registry", kubelet.join("plugins_registry"))];
    let mounts = folders.each_ref().map(|(name, path)| json!({"name": name, "mountPath": path}));
    let volumes = folders
        .each_ref()
        .map(|(name, path)| json!({"name": name, "hostPath": {"path": path, "type": "Directory"}}));
    let node = json!({"fieldRef": {"fieldPath": "spec.nodeName"}});
    let pod = json!({
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
    });
    let rules = json!([
        {"apiGroups": [CLAIMS], "resources": ["resourceclaims"], "verbs": ["get"]},
        {"apiGroups": [CLAIMS], "resources": ["resourceslices"], "verbs": ["create", "delete"]},
    ]);
    let account = json!({"kind": "ServiceAccount", "name": "driver", "namespace": space.name});
    let role = json!({"apiGroup": RIGHTS, "kind": "ClusterRole", "name": DRIVER});
    Ok(json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "driver"}},
        {"apiVersion": format!("{RIGHTS}/v1"), "kind": "ClusterRole",
            "metadata": {"name": DRIVER}, "rules": rules},
        {"apiVersion": format!("{RIGHTS}/v1"), "kind": "ClusterRoleBinding",
            "metadata": {"name": DRIVER}, "roleRef": role, "subjects": [account]},
        pod,
    ]}))
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

/// What pods may claim: a class of the driver's devices, and templates for one and for all.
fn offer() -> Value {
    let api = format!("{CLAIMS}/v1");
    let ours = format!("device.driver == '{DRIVER}'");
    let template = |name: &str, count: usize| {
        let request =
            json!({"name": "any", "exactly": {"deviceClassName": DRIVER, "count": count}});
        json!({"apiVersion": api, "kind": "ResourceClaimTemplate", "metadata": {"name": name},
            "spec": {"spec": {"devices": {"requests": [request]}}}})
    };
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": api, "kind": "DeviceClass", "metadata": {"name": DRIVER},
            "spec": {"selectors": [{"cel": {"expression": ours}}]}},
        template("one", 1),
        template("all", DEVICES),
    ]})
}

/// Wait until so many devices are published.
fn published(cluster: &Cluster, space: &Namespace, count: usize) -> anyhow::Result<()> {
    let published = wait("the devices", END_TIMEOUT, || {
        let slices = cluster.kubectl.get(&["resourceslices"])?.unwrap_or_default();
        let slices = slices["items"].as_array().into_iter().flatten();
        let ours = slices.filter(|slice| slice["spec"]["driver"] == DRIVER);
        let devices = ours.filter_map(|slice| slice["spec"]["devices"].as_array());
        Ok((devices.map(Vec::len).sum::<usize>() == count).then_some(()))
    });
    published.with_context(|| space.dump())
}

/// The same pod, whose first container may use what is claimed by a template.
fn claiming(pod: Pod, template: &str) -> Pod {
    let claim = json!({"name": "devices", "resourceClaimTemplateName": template});
    let pod = pod.spec("resourceClaims", json!([claim]));
    pod.container("resources", json!({"claims": [{"name": "devices"}]}))
}

/// The name of a pod's claim, and the device that it has got.
fn claimed(space: &Namespace, pod: &str) -> anyhow::Result<(String, String)> {
    let pod = space.get(&format!("pod/{pod}"))?.context("no pod")?;
    let name = pod["status"]["resourceClaimStatuses"][0]["resourceClaimName"].as_str();
    let name = name.with_context(|| format!("no claim: {}", pod["status"]))?;
    let claim = space.get(&format!("resourceclaim/{name}"))?.context("no claim")?;
    let device = claim["status"]["allocation"]["devices"]["results"][0]["device"].as_str();
    let device = device.with_context(|| format!("no device: {}", claim["status"]))?;
    Ok((name.to_owned(), device.to_owned()))
}

/// Wait until the scheduler has said that there are too few devices for a pod.
fn too_few(space: &Namespace, pod: &str) -> anyhow::Result<()> {
    space.wait(&format!("pod/{pod}"), "unschedulable", END_TIMEOUT, |pod| {
        let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        let mut said = conditions.filter(|condition| condition["reason"] == "Unschedulable");
        let message = said.find_map(|condition| condition["message"].as_str());
        let found = message.is_some_and(|text| text.contains("cannot allocate all claims"));
        Ok(found.then_some(()))
    })
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_device_that_is_claimed_reaches_the_container_that_names_the_claim() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("claims")?;
    // Where containerd looks for the kubelet's devices.
    fs::write(cluster.ours()?.cdi.join("claimed.json"), specification().to_string())?;
    space.apply(&offer().to_string())?;
    space.apply(&driver(&cluster, &space)?.to_string())?;
    published(&cluster, &space, DEVICES)?;

    let image = images::tool(&cluster)?;
    let runs: [(&str, &[&str]); 2] = [("claims", &["env"]), ("does-not", &["env"])];
    space.apply(&claiming(Pod::of_runs("once", image, &runs), "one").yaml())?;
    let [claims, does_not] = outputs(&space, "once", ["claims", "does-not"])?;
    assert_eq!(claims.matches("=granted").count(), 1, "{claims}");
    assert!(!does_not.contains("CLAIMED"), "{does_not}");

    let holder = Pod::new("holder", image).args(&["tick"]);
    let holder = holder.beside("containers", container("beside", image, &["tick"]));
    space.apply(&claiming(holder, "one").yaml())?;
    let holder = Process::of(&cluster, &space, "holder", "main")?;
    let (claim, device) = claimed(&space, "holder")?;
    holder.check_device(&format!("/dev/claimed/{device}"))?;
    let nodes = fs::read_dir(holder.inside("/dev/claimed"))?.count();
    ensure!(nodes == 1, "{nodes} devices, and {device} was allocated");
    let beside = Process::of(&cluster, &space, "holder", "beside")?;
    ensure!(!beside.inside("/dev/claimed").exists(), "a container without a claim has a device");

    space.apply(&Pod::of_runs("without", image, &runs[..1]).yaml())?;
    let [without] = outputs(&space, "without", ["claims"])?;
    assert!(!without.contains("CLAIMED"), "{without}");

    // One of the two devices is in use, and is free when its pod is gone.
    space.apply(&claiming(Pod::of_runs("all", image, &runs[..1]), "all").yaml())?;
    too_few(&space, "all")?;
    space.run(&["delete", "pod", "holder"])?;
    let log = space.logs("driver")?;
    ensure!(log.contains(&format!("unprepared {claim}\n")), "{claim} is still prepared: {log}");
    let [all] = outputs(&space, "all", ["claims"])?;
    assert_eq!(all.matches("=granted").count(), DEVICES, "{all}");

    // The claims go with their pods, and the driver last, which has to release them.
    space.run(&["delete", "pod", "once", "without", "all"])?;
    wait("no claim", END_TIMEOUT, || {
        Ok(space.run(&["get", "resourceclaims", "-o", "name"])?.is_empty().then_some(()))
    })?;
    space.run(&["delete", "pod", "driver"])?;
    published(&cluster, &space, 0)?;
    let kinds = "deviceclass,clusterrole,clusterrolebinding";
    cluster.kubectl.run(&["delete", kinds, DRIVER])?;
    space.delete()
}
