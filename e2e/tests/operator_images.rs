//! What a Model asks for its image in a real cluster: who must have signed it, and that nodes have it
//! before a pod needs it.

mod support;

use std::fs;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use support::policy::InForce;
use wick_e2e::filetype::{PYTHON, classify};
use wick_e2e::package;
use wick_e2e::stage::{SETTLED, Stage};
use wick_e2e::wait::wait;

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn an_image_is_kept_on_nodes_while_no_pod_runs() -> anyhow::Result<()> {
    let stage = Stage::new("prefetch")?;
    let image = stage.image("9.11.0")?;
    stage.apply(&image, &json!({"prefetch": {"policy": "Always"}}))?;
    let keepers = || -> anyhow::Result<Vec<Value>> {
        let list = stage.space.get("daemonsets")?.unwrap_or_default();
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    };
    wait("the image on each node", SETTLED, || {
        let all = keepers()?;
        let kept = all.iter().all(|one| {
            let status = &one["status"];
            status["numberReady"].as_u64().is_some_and(|ready| ready > 0)
                && status["numberReady"] == status["desiredNumberScheduled"]
        });
        Ok((all.len() == 1 && kept).then_some(()))
    })
    .map_err(|error| anyhow::anyhow!("{error:#}\n{}", stage.space.dump()))?;
    // They are none of those that answer.
    let addr = stage.address()?;
    ensure!(classify(addr, PYTHON)? == "python");
    stage.until_gone()?;
    assert_eq!(keepers()?.len(), 1);
    ensure!(classify(addr, PYTHON)? == "python");

    stage.apply(&image, &json!({"prefetch": {"policy": "Never"}}))?;
    wait("the end of what keeps it", SETTLED, || Ok(keepers()?.is_empty().then_some(())))?;
    stage.end()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn an_image_runs_when_the_models_key_has_signed_it() -> anyhow::Result<()> {
    let stage = Stage::new("signed")?;
    let scratch = tempfile::tempdir()?;
    let reference = "docker.io/signed/filetype:9.12.0";
    let folder = scratch.path().join("package");
    package::example_as("filetype", "9.12.0", &folder)?;
    let tar = scratch.path().join("image.tar");
    // Packing is reproducible: this is the image that the node gets.
    package::pack(&folder, reference, &tar)?;
    let image = stage.import(&folder, reference)?;
    let policy = stage.cluster.ours()?.policy.clone();
    let force = InForce::new(&policy, "docker.io/signed/*")?;
    let tar = tar.display().to_string();
    package::wick(&["sign", &tar, "--key", &force.key()])?;
    let envelope = fs::read_to_string(format!("{tar}.envelope.json"))?;
    let other = scratch.path().join("other");
    let other = other.to_str().context("the path is text")?;
    package::wick(&["key", "generate", other, "--no-passphrase"])?;

    let signed_by = |key: &str| -> anyhow::Result<Value> {
        let key = fs::read_to_string(key)?;
        let signature = json!({"keys": [key], "envelope": envelope});
        Ok(json!({"package": {"image": image, "signature": signature}}))
    };
    stage.apply(&image, &signed_by(&format!("{other}.pub"))?)?;
    stage.until("Ready", "Unsigned")?;
    ensure!(stage.pods_of("filetype")?.is_empty(), "a pod has an image that nobody signed");

    // The node's own policy finds the signature in the pod.
    stage.apply(&image, &signed_by(&force.public_key())?)?;
    stage.until("Ready", "Serving")?;
    ensure!(classify(stage.address()?, PYTHON)? == "python");
    stage.end()
}
