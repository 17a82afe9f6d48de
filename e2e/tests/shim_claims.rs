//! Devices by claims, which is dynamic resource allocation: a real scheduler allocates what a real
//! driver has published, and a real kubelet asks that driver, a pod of its own, how a container
//! gets it.

mod support;

use std::fs;

use anyhow::{Context as _, ensure};
use serde_json::json;
use support::driver::{DEVICES, Driver};
use support::node::Process;
use support::{END_TIMEOUT, Pod, container, images, outputs};
use wick_e2e::cluster::Cluster;
use wick_e2e::kubectl::Namespace;
use wick_e2e::wait::wait;

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
    let driver = Driver { cluster: &cluster, space: &space };
    driver.start()?;
    space.apply(&driver.templates().to_string())?;

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
    driver.stop()?;
    space.delete()
}
