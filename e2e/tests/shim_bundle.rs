//! A site without a registry: containerd imports a bundle as it is, `wick load` puts its signatures
//! and its policy on the node, and pods run what is in it and is signed, and nothing else.

mod support;

use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use support::{PORT, Pod, classify, event};
use wick_e2e::cluster::Cluster;
use wick_e2e::package;

/// The site's rules; other suites' images are let run.
const RULES: &str = "default = \"allow\"\n\
    [[key]]\nname = \"release\"\nfile = \"release.pub\"\n\
    [[rule]]\nimages = [\"docker.io/bundled/*\"]\nkeys = [\"release\"]\n";

const OPEN: &str = "default = \"allow\"\n";

const SIGNED: &str = "docker.io/bundled/filetype:1";
const OTHER: &str = "docker.io/bundled/other:1";

const PYTHON: &str = "import os\n\nprint(os.name)\n";

/// The node's policy, which goes back to what it was.
struct Restored<'a>(&'a Path);

impl Drop for Restored<'_> {
    fn drop(&mut self) {
        // The test's own failure is the one to see.
        fs::write(self.0, OPEN).ok();
    }
}

/// Sign an image where it is made, and bundle it, also under its digest, with another that nobody
/// has signed. Gives the name that pins the signed one.
fn bundled(folder: &Path) -> anyhow::Result<String> {
    let path = |name: &str| folder.join(name).display().to_string();
    let (key, policy, store) = (path("release"), path("policy.toml"), path("store"));
    package::wick(&["key", "generate", &key, "--no-passphrase"])?;
    fs::write(&policy, RULES).context("write the policy")?;
    for (name, reference, version) in [("signed", SIGNED, "9.1.0"), ("other", OTHER, "9.1.1")] {
        let (package, tar) = (folder.join(name), path(&format!("{name}.tar")));
        package::example_as("filetype", version, &package)?;
        package::pack(&package, reference, Path::new(&tar))?;
        if reference == SIGNED {
            package::wick(&["sign", &tar, "--key", &format!("{key}.key")])?;
        }
        package::wick(&["load", &tar, "--store", &store])?;
    }
    let site = path("site.tar");
    let bundle = ["bundle", SIGNED, OTHER, "-o", &site, "--store", &store, "--output", "json"];
    let plain = package::wick(&bundle)?;
    let plain: Value = serde_json::from_str(&plain).context("read what was bundled")?;
    let images = plain["images"].as_array().context("no images")?;
    let digest = images.iter().find(|image| image["name"] == SIGNED);
    let digest = digest.and_then(|image| image["digest"].as_str()).context("no digest")?;
    let pinned = format!("docker.io/bundled/filetype@{digest}");
    let strict = [&bundle[..], &[pinned.as_str(), "--policy", &policy]].concat();
    ensure!(package::wick(&strict).is_err(), "an image without a signature was let in");
    package::wick(&[&strict[..], &["--allow-refused"]].concat())?;
    Ok(pinned)
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_pod_runs_from_a_bundle_without_a_registry_and_what_is_not_signed_does_not()
-> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let ours = cluster.ours()?;
    let space = cluster.kubectl.namespace("bundle")?;
    let scratch = tempfile::tempdir()?;
    let pinned = bundled(scratch.path())?;

    let site = scratch.path().join("site.tar");
    cluster.import_archive(&site)?;
    let _restored = Restored(&ours.policy);
    let path = |path: &Path| path.display().to_string();
    let (site, store) = (path(&site), path(&scratch.path().join("node")));
    let (signatures, place) =
        (path(&ours.signatures), format!("--install-policy={}", ours.policy.display()));
    let load = ["load", &site, "--store", &store, "--node", "--signatures", &signatures, &place];
    package::wick(&[&load[..], &["--replace"]].concat())?;

    // No kubelet asks a registry for these, and there is none that has them.
    let never = |name: &str, image: &str| {
        Pod::new(name, image).container("imagePullPolicy", "Never".into())
    };
    for (name, image) in [("tagged", SIGNED), ("pinned", pinned.as_str())] {
        space.apply(&never(name, image).probed().yaml())?;
        let ip = space.ready_pod(name)?;
        assert_eq!(classify((ip, PORT).into(), PYTHON)?, "python");
    }
    space.apply(&never("other", OTHER).once().yaml())?;
    let said = event(&space, &["policy does not let this package run", OTHER])?;
    assert!(said.contains("has no signature"), "{said}");
    space.delete()
}
