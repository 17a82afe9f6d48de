//! Devices of a device plugin: a real kubelet asks a real plugin, which runs as a pod of its own,
//! and a package that requests a device gets it with everything that belongs to it.

mod support;

use std::fs;

use anyhow::ensure;
use serde_json::{Value, json};
use support::node::{DEVICE, Folder, Process};
use support::plugin::Plugin;
use support::{Pod, images, outputs};
use wick_e2e::cluster::Cluster;

/// What the plugin offers, and how many: one for each container below.
const RESOURCE: &str = "wick.test/harmless";
const DEVICES: u32 = 3;

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_device_of_a_plugin_reaches_the_pod_that_asks_for_it_and_no_other() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("devices")?;
    let driver = Folder::new(&cluster, "plugin")?;
    driver.write("about", "from the driver")?;
    let spec = json!({
        "cdiVersion": "0.6.0", "kind": "wick.test/named",
        "devices": [{"name": "one", "containerEdits": {
            "env": ["BY_NAME=granted"],
            "deviceNodes": [{"path": "/dev/harmless/named", "hostPath": DEVICE,
                "permissions": "rw"}],
        }}],
    });
    // Where containerd looks for the kubelet's devices.
    fs::write(cluster.ours()?.cdi.join("named.json"), spec.to_string())?;
    let allocation = json!({
        "envs": {"BY_PLUGIN": "granted"},
        "mounts": [{"container_path": "/driver", "host_path": driver.path, "read_only": true}],
        "devices": [{"container_path": "/dev/harmless/plain", "host_path": DEVICE,
            "permissions": "rw"}],
        "cdi_devices": [{"name": "wick.test/named=one"}],
    });
    let plugin = Plugin { resource: RESOURCE, devices: DEVICES };
    plugin.start(&cluster, &space, &allocation)?;

    let image = images::tool(&cluster)?;
    let limits = json!({"limits": {RESOURCE: 1}});
    let runs: [(&str, &[&str]); 2] = [("env", &["env"]), ("about", &["cat", "/driver/about"])];
    let mut with: Value = serde_json::from_str(&Pod::of_runs("with", image, &runs).yaml())?;
    for container in with["spec"]["containers"].as_array_mut().into_iter().flatten() {
        container["resources"] = limits.clone();
    }
    space.apply(&with.to_string())?;
    let [env, about] = outputs(&space, "with", ["env", "about"])?;
    assert!(env.contains("BY_PLUGIN=granted") && env.contains("BY_NAME=granted"), "{env}");
    assert!(about.contains("from the driver"), "{about}");
    let holder = Pod::new("holder", image).args(&["tick"]).container("resources", limits);
    space.apply(&holder.yaml())?;
    let holder = Process::of(&cluster, &space, "holder", "main")?;
    holder.check_device("/dev/harmless/plain")?;
    holder.check_device("/dev/harmless/named")?;

    space.apply(&Pod::of_runs("without", image, &runs[..1]).yaml())?;
    let [env] = outputs(&space, "without", ["env"])?;
    assert!(!env.contains("granted"), "{env}");
    space.apply(&Pod::new("other", image).args(&["tick"]).yaml())?;
    let other = Process::of(&cluster, &space, "other", "main")?;
    for path in ["/dev/harmless", "/driver"] {
        ensure!(!other.inside(path).exists(), "a pod without a device has {path}");
    }
    ensure!(other.check_device("/dev/harmless/plain").is_err(), "it has the device");
    plugin.stop(&cluster, &space)?;
    space.delete()
}
