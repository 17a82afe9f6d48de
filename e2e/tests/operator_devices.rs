//! Devices of Models: memory of one that pods of a node share is counted by the scheduler, one that is claimed reaches
//! the Model's pods, and a Model that no node has room for says so.

mod support;

use anyhow::{Context as _, ensure};
use serde_json::json;
use support::driver::{DEVICES, Driver};
use support::node::Process;
use wick_e2e::stage::{SETTLED, Stage};
use wick_e2e::wait::wait;

/// The resource by which it is counted.
const MEMORY: &str = "wick.dev/device-memory";

/// Have the node offer so many bytes, as an administrator does; none takes the offer back.
fn offer(stage: &Stage, bytes: Option<u64>) -> anyhow::Result<()> {
    let kubectl = &stage.cluster.kubectl;
    let nodes = kubectl.get(&["nodes"])?.context("no nodes")?;
    let name = nodes["items"][0]["metadata"]["name"].as_str().context("a node without name")?;
    let value = bytes.map(|bytes| bytes.to_string());
    let patch = json!({"status": {"capacity": {MEMORY: value}, "allocatable": {MEMORY: value}}});
    let patch = patch.to_string();
    kubectl.run(&["patch", "node", name, "--subresource=status", "--type=merge", "-p", &patch])?;
    Ok(())
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn memory_of_a_shared_device_is_counted() -> anyhow::Result<()> {
    let stage = Stage::new("memory")?;
    let image = stage.image("9.9.0")?;
    offer(&stage, Some(1 << 30))?;
    let spec = json!({
        "scale": {"minReplicas": 1}, "resources": {"limits": {MEMORY: "600Mi"}},
    });
    stage.apply_as("first", &image, &spec)?;
    stage.until_of("first", "Ready", "Serving")?;
    let pod = stage.pods_of("first")?.pop().context("no pod")?;
    let pod = stage.space.get(&format!("pod/{pod}"))?.context("the pod is gone")?;
    ensure!(pod["metadata"]["annotations"][MEMORY] == "629145600", "{pod}");
    stage.apply_as("second", &image, &spec)?;
    let second = stage.until_of("second", "Degraded", "Unschedulable")?;
    ensure!(second.to_string().contains(&format!("Insufficient {MEMORY}")), "{second}");
    stage.space.run(&["delete", "model/first"])?;
    ready(&stage, "second")?;
    offer(&stage, None)?;
    stage.end()
}

fn ready(stage: &Stage, model: &str) -> anyhow::Result<()> {
    wait(&format!("the Model {model}"), SETTLED, || {
        let model = stage.space.get(&format!("model/{model}"))?.context("the Model is gone")?;
        let conditions = model["status"]["conditions"].as_array().into_iter().flatten();
        let mut ready = conditions.filter(|one| one["type"] == "Ready");
        Ok(ready.any(|one| one["status"] == "True").then_some(()))
    })
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_model_that_claims_devices_has_them_and_one_that_finds_none_says_so() -> anyhow::Result<()> {
    let stage = Stage::new("claims")?;
    // The Models' own namespace takes no pod that sees the node's folders.
    let space = stage.cluster.kubectl.namespace("driver")?;
    let driver = Driver { cluster: &stage.cluster, space: &space };
    driver.start()?;
    stage.space.apply(&driver.templates().to_string())?;
    let image = stage.image("9.9.1")?;
    let claim = |template: &str| {
        json!({
            "scale": {"minReplicas": 1},
            "devices": [{"name": "accelerator", "resourceClaimTemplateName": template}],
        })
    };
    stage.apply_as("first", &image, &claim("all"))?;
    stage.until_of("first", "Ready", "Serving")?;
    let pod = stage.pods_of("first")?.pop().context("no pod")?;
    let worker = Process::of(&stage.cluster, &stage.space, &pod, "model")?;
    for device in 0..DEVICES {
        worker.check_device(&format!("/dev/claimed/device-{device}"))?;
    }
    stage.apply_as("second", &image, &claim("one"))?;
    let second = stage.until_of("second", "Degraded", "Unschedulable")?;
    ensure!(second.to_string().contains("cannot allocate all claims"), "{second}");
    stage.space.run(&["delete", "model/first"])?;
    ready(&stage, "second")?;
    stage.space.run(&["delete", "model/second"])?;
    wait("no claim", SETTLED, || {
        Ok(stage.space.run(&["get", "resourceclaims", "-o", "name"])?.is_empty().then_some(()))
    })?;
    driver.stop()?;
    space.delete()?;
    stage.end()
}
