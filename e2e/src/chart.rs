//! The chart of `deploy/chart/wick`, installed in a test's cluster by the real Helm, with an image
//! of the tree's own `wick`.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::distribution;
use crate::kubectl::Kubectl;
use crate::wait::wait;

/// Helm's executable, as `cargo xtask e2e` says.
const HELM: &str = "WICK_E2E_HELM";

/// The executable to make an image of.
const WICK: &str = "WICK_BIN";

/// The chart, from the root of the tree.
const FOLDER: &str = "deploy/chart/wick";

/// The release and its namespace.
const RELEASE: &str = "wick";
pub const NAMESPACE: &str = "wick-system";

/// What nodes know the image as.
const REPOSITORY: &str = "docker.io/local/wick";
const TAG: &str = "e2e";

/// The Deployments of the chart.
pub const DEPLOYMENTS: [&str; 2] = ["wick-operator", "wick-activator"];

/// Longest until both are ready. They start in a second or two, and longer beside a compiler.
const AVAILABLE: Duration = Duration::from_secs(90);

/// Longest until pods of a removed release are gone: the activator's grace period is 90 s.
const REMOVED: Duration = Duration::from_secs(120);

/// A release of the chart in a cluster. It stays when this is dropped, as others may use it.
pub struct Release {
    kubectl: Kubectl,
    helm: PathBuf,
}

/// Make the image known to the node, install the chart or bring it up to date, and wait until
/// operator and activator are ready. `values` go before those of tests.
pub fn install(cluster: &Cluster, values: &Value) -> anyhow::Result<Release> {
    let release = Release::prepare(cluster)?;
    release.apply(values)?;
    release.wait_until_available()?;
    Ok(release)
}

/// The reference of the image that `import_image` makes known.
pub fn image() -> String {
    format!("{REPOSITORY}:{TAG}")
}

/// Make an image of the tree's own `wick` known to the node.
pub fn import_image(cluster: &Cluster) -> anyhow::Result<()> {
    let wick = PathBuf::from(variable(WICK)?);
    cluster.import(&distribution::image(&wick, &image())?)
}

/// The folder of the chart, in the checkout that this runs in: a build may be of another that shares
/// its target folder.
pub fn folder() -> anyhow::Result<PathBuf> {
    let here = env::current_dir().context("find the checkout")?;
    let mut folders = here.ancestors().map(|above| above.join(FOLDER));
    folders
        .find(|folder| folder.is_dir())
        .with_context(|| format!("no {FOLDER} above {}", here.display()))
}

// === impl Release ===

impl Release {
    /// Everything that the chart needs, without the chart: the image, and a namespace that takes
    /// only restricted pods.
    pub fn prepare(cluster: &Cluster) -> anyhow::Result<Self> {
        import_image(cluster)?;
        let kubectl = cluster.kubectl.clone();
        let namespace = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": NAMESPACE,
                "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
            },
        });
        kubectl.run_with(&["apply", "-f", "-"], &namespace.to_string())?;
        Ok(Self { kubectl, helm: PathBuf::from(variable(HELM)?) })
    }

    /// Install it or bring it up to date, without waiting for pods. What of it exists already,
    /// such as a definition that another test has applied, becomes the release's.
    pub fn apply(&self, values: &Value) -> anyhow::Result<()> {
        let scratch = tempfile::tempdir().context("make a folder")?;
        let chart = folder()?;
        let tests = json!({
            "image": {"repository": REPOSITORY, "tag": TAG, "pullPolicy": "Never"},
        });
        let mut helm = self.helm(&["upgrade", "--install", "--take-ownership", RELEASE]);
        helm.arg(&chart);
        // JSON is YAML, and of two files the last has the last word.
        for (name, values) in [("tests.yaml", &tests), ("values.yaml", values)] {
            let file = scratch.path().join(name);
            fs::write(&file, values.to_string())?;
            helm.arg("--values").arg(&file);
        }
        output(&mut helm).map(drop)
    }

    /// Run Helm with words such as `rollback wick 1`; what it prints.
    pub fn run(&self, words: &[&str]) -> anyhow::Result<String> {
        output(&mut self.helm(words))
    }

    /// Wait until every pod of both Deployments is ready.
    pub fn wait_until_available(&self) -> anyhow::Result<()> {
        for name in DEPLOYMENTS {
            let waited = wait(&format!("{name} available"), AVAILABLE, || {
                let found = self.deployment(name)?;
                let (spec, status) = (&found["spec"], &found["status"]);
                let current = status["observedGeneration"] == found["metadata"]["generation"];
                let all = status["availableReplicas"].as_i64().unwrap_or(0)
                    == spec["replicas"].as_i64().unwrap_or(1)
                    && status["updatedReplicas"] == status["replicas"];
                Ok((current && all).then_some(()))
            });
            waited.map_err(|error| anyhow::anyhow!("{error:#}\n{}", self.dump()))?;
        }
        Ok(())
    }

    /// A Deployment of the release.
    pub fn deployment(&self, name: &str) -> anyhow::Result<Value> {
        let found = self.kubectl.get(&["--namespace", NAMESPACE, &format!("deployment/{name}")])?;
        found.with_context(|| format!("there is no Deployment {name}"))
    }

    /// Remove the release, and wait until its pods are gone. The definition and the Models stay.
    pub fn uninstall(&self) -> anyhow::Result<()> {
        self.run(&["uninstall", RELEASE])?;
        wait("the end of the release's pods", REMOVED, || {
            let pods = self.kubectl.get(&["--namespace", NAMESPACE, "pods"])?.unwrap_or_default();
            Ok(pods["items"].as_array().is_none_or(Vec::is_empty).then_some(()))
        })
    }

    /// Pods, events and logs.
    pub fn dump(&self) -> String {
        let shown = |args: &[&str]| {
            let words = [&["--namespace", NAMESPACE][..], args].concat();
            self.kubectl.run(&words).unwrap_or_else(|error| format!("{error:#}\n"))
        };
        let mut text = shown(&["get", "pods", "-o", "wide"]);
        text += &shown(&["get", "events", "--sort-by=.lastTimestamp"]);
        for name in DEPLOYMENTS {
            text += &shown(&["logs", "--tail=30", "--prefix", &format!("deployment/{name}")]);
        }
        text
    }

    fn helm(&self, words: &[&str]) -> Command {
        let mut helm = Command::new(&self.helm);
        helm.arg("--kubeconfig").arg(self.kubectl.kubeconfig()).args(["--namespace", NAMESPACE]);
        helm.args(words);
        helm
    }
}

fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().context("run helm")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "helm: {}", error.trim());
    String::from_utf8(output.stdout).context("what helm prints is text")
}

fn variable(name: &str) -> anyhow::Result<String> {
    env::var(name).with_context(|| format!("{name} is not set: run `cargo xtask e2e`"))
}
