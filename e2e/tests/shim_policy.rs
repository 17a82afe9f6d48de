//! A policy in force on the node: what is signed runs, by annotation or by the node's store, and
//! the rest is refused with an event that says what to do.

mod support;

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use support::policy::InForce;
use support::{PORT, Pod, classify, event, images};
use wick_e2e::cluster::Cluster;
use wick_e2e::package;

/// What must be signed in these tests.
const IMAGES: &str = "docker.io/signed/*";

const PYTHON: &str = "import os\n\nprint(os.name)\n";

/// Pack the real Magika under a name, import it, and give where the tar is. Each has another
/// version: containerd takes images with equal configurations for one.
fn imported(
    cluster: &Cluster,
    scratch: &Path,
    reference: &str,
    version: &str,
) -> anyhow::Result<String> {
    let folder = scratch.join("package");
    package::example_as("filetype", version, &folder)?;
    let tar = scratch.join("image.tar");
    package::pack(&folder, reference, &tar)?;
    cluster.import_archive(&tar)?;
    Ok(tar.display().to_string())
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn an_unsigned_package_is_refused_and_a_signed_one_serves() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let ours = cluster.ours()?;
    let space = cluster.kubectl.namespace("policy")?;
    let scratch = tempfile::tempdir()?;
    let reference = "docker.io/signed/annotated:1";
    let tar = imported(&cluster, scratch.path(), reference, "9.0.1")?;
    let force = InForce::new(&ours.policy, IMAGES)?;

    space.apply(&Pod::new("unsigned", reference).once().yaml())?;
    let said = event(&space, &["policy does not let this package run", reference])?;
    assert!(said.contains("has no signature") && said.contains("wick sign"), "{said}");

    package::wick(&["sign", &tar, "--key", &force.key()])?;
    let envelope = fs::read_to_string(format!("{tar}.envelope.json"))?;
    let pod = Pod::new("signed", reference).probed().annotation("wick.dev/signature", &envelope);
    space.apply(&pod.yaml())?;
    let ip = space.ready_pod("signed")?;
    assert_eq!(classify((ip, PORT).into(), PYTHON)?, "python");

    // The same envelope lets no other image run, whatever its name.
    let other = "docker.io/signed/other:1";
    package::import(&cluster, &package::example("ocr")?, other)?;
    let pod = Pod::new("other", other).once().annotation("wick.dev/signature", &envelope);
    space.apply(&pod.yaml())?;
    let said = event(&space, &["policy does not let this package run", other])?;
    assert!(said.contains("docker.io/signed/annotated"), "{said}");
    assert!(said.contains("signed_as"), "{said}");
    // And what no rule names runs as before.
    let image = images::tool(&cluster)?;
    space.apply(&Pod::new("free", image).args(&["0"]).once().yaml())?;
    assert!(space.output_of("free")?.contains("main 0"));
    space.delete()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_plain_pod_is_found_in_the_nodes_store() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let ours = cluster.ours()?;
    let space = cluster.kubectl.namespace("policy")?;
    let scratch = tempfile::tempdir()?;
    let reference = "docker.io/signed/stored:1";
    let tar = imported(&cluster, scratch.path(), reference, "9.0.2")?;
    let force = InForce::new(&ours.policy, IMAGES)?;
    let store = ours.signatures.display().to_string();
    package::wick(&["sign", &tar, "--key", &force.key(), "--node", "--signatures", &store])?;
    space.apply(&Pod::new("plain", reference).probed().yaml())?;
    let ip = space.ready_pod("plain")?;
    assert_eq!(classify((ip, PORT).into(), PYTHON)?, "python");

    // A mount over a signed file is not what was signed.
    let config = space.run(&["create", "configmap", "over", "--from-literal=wick.toml=x"]);
    config.context("make a config map")?;
    let volume = serde_json::json!({"configMap": {"name": "over"}});
    let pod = Pod::new("covered", reference).once().volume("over", "/wick.toml", true, volume);
    let pod = pod.container(
        "volumeMounts",
        serde_json::json!([{"name": "over", "mountPath": "/wick.toml", "subPath": "wick.toml"}]),
    );
    space.apply(&pod.yaml())?;
    event(&space, &["policy does not let this package run", "over the signed `wick.toml`"])?;
    space.delete()
}
