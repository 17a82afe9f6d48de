//! A cluster with the chart's release, and a namespace for Models of the real Magika.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::chart::{self, NAMESPACE, Release};
use crate::cluster::Cluster;
use crate::http::{self, connects};
use crate::kubectl::Namespace;
use crate::package;
use crate::wait::wait;

/// Longest until a Model has become what it should.
pub const SETTLED: Duration = Duration::from_secs(90);

/// Where operator and activators answer for themselves.
const METRICS: u16 = 9090;

/// See the module.
pub struct Stage {
    pub cluster: Cluster,
    pub release: Release,
    pub space: Namespace,
    scratch: tempfile::TempDir,
}

// === impl Stage ===

impl Stage {
    /// A namespace that takes only restricted pods. Its name starts with `name`.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let cluster = Cluster::attach()?;
        let release = chart::install(&cluster, &json!({}))?;
        let space = cluster.kubectl.namespace(name)?;
        let enforce = "pod-security.kubernetes.io/enforce=restricted";
        cluster.kubectl.run(&["label", "namespace", &space.name, enforce])?;
        Ok(Self { cluster, release, space, scratch: tempfile::tempdir()? })
    }

    /// Magika, as a version of its own that the node has, by its digest.
    pub fn image(&self, version: &str) -> anyhow::Result<String> {
        let folder = self.scratch.path().join(version);
        package::example_as("filetype", version, &folder)?;
        self.import(&folder, &format!("docker.io/models/filetype:{version}"))
    }

    /// A package that the node has, by its digest.
    pub fn import(&self, package: &std::path::Path, reference: &str) -> anyhow::Result<String> {
        let tar = self.scratch.path().join("image.tar");
        package::pack(package, reference, &tar)?;
        self.cluster.import_archive(&tar)?;
        let (repository, _) = reference.rsplit_once(':').context("a reference with a tag")?;
        let pinned = format!("{repository}@{}", self.digest(reference)?);
        let mut tag = self.cluster.ctr()?;
        let tagged = tag.args(["images", "tag", "--force", reference, &pinned]).output()?;
        ensure!(tagged.status.success(), "tag {pinned}");
        Ok(pinned)
    }

    /// Apply the Model `filetype`, which sleeps soon.
    pub fn apply(&self, image: &str, more: &Value) -> anyhow::Result<()> {
        self.apply_as("filetype", image, more)
    }

    /// The same by another name. Fields of `more` go before those that it has anyway.
    pub fn apply_as(&self, name: &str, image: &str, more: &Value) -> anyhow::Result<()> {
        let mut spec = json!({
            "package": {"image": image},
            "scale": {"idleTimeout": "10s", "scaleDownDelay": "5s", "stableWindow": "10s"},
        });
        for (field, value) in more.as_object().context("no fields")? {
            spec[field] = value.clone();
        }
        let model = json!({
            "apiVersion": "wick.dev/v1alpha1", "kind": "Model",
            "metadata": {"name": name}, "spec": spec,
        });
        self.space.apply(&model.to_string())
    }

    /// Waits until a condition of the Model `filetype` has this reason.
    pub fn until(&self, type_: &str, reason: &str) -> anyhow::Result<Value> {
        self.until_of("filetype", type_, reason)
    }

    pub fn until_of(&self, name: &str, type_: &str, reason: &str) -> anyhow::Result<Value> {
        let what = format!("{type_} because of {reason}");
        let waited = self.space.wait(&format!("model/{name}"), &what, SETTLED, |model| {
            let conditions = model["status"]["conditions"].as_array().into_iter().flatten();
            let mut found =
                conditions.filter(|one| one["type"] == type_ && one["reason"] == reason);
            Ok(found.next().map(|_| model.clone()))
        });
        waited.map_err(|error| {
            anyhow::anyhow!("{error:#}\n{}\n{}", self.space.dump(), self.release.dump())
        })
    }

    /// Waits until the Model `filetype` sleeps, and has no pod.
    pub fn until_gone(&self) -> anyhow::Result<()> {
        self.until_gone_of("filetype")
    }

    pub fn until_gone_of(&self, name: &str) -> anyhow::Result<()> {
        self.until_of(name, "Ready", "Cold")?;
        wait("the end of the pods", SETTLED, || Ok(self.pods_of(name)?.is_empty().then_some(())))
    }

    /// The names of a Model's pods.
    pub fn pods_of(&self, name: &str) -> anyhow::Result<Vec<String>> {
        let selector = format!("wick.dev/model={name}");
        let columns = "jsonpath={range .items[*]}{.metadata.name}{\"\\n\"}{end}";
        let pods = self.space.run(&["get", "pods", "-l", &selector, "-o", columns])?;
        Ok(pods.lines().map(str::to_owned).collect())
    }

    pub fn address(&self) -> anyhow::Result<SocketAddr> {
        self.address_of("filetype")
    }

    /// Where the Model's Service is, once somebody answers there.
    pub fn address_of(&self, name: &str) -> anyhow::Result<SocketAddr> {
        let ip = self.space.wait(&format!("service/{name}"), "an address", SETTLED, |service| {
            let ip = service["spec"]["clusterIP"].as_str();
            ip.map(|ip| ip.parse::<IpAddr>().context("the Service's address")).transpose()
        })?;
        let addr = SocketAddr::from((ip, 80));
        wait("the way to the Service", SETTLED, || Ok(connects(addr).then_some(())))?;
        Ok(addr)
    }

    /// Ends the pods of a part of the release, at once or in peace.
    pub fn release_pods(&self, part: &str, at_once: bool) -> anyhow::Result<()> {
        let selector = format!("app.kubernetes.io/component={part}");
        let mut words = vec!["--namespace", NAMESPACE, "delete", "pods", "-l", &selector];
        if at_once {
            words.extend(["--grace-period=0", "--force"]);
        }
        self.cluster.kubectl.run(&words)?;
        self.release.wait_until_available()
    }

    /// Waits until nothing is left of what the operator has made for the stage's Models.
    pub fn until_nothing_is_left(&self) -> anyhow::Result<()> {
        wait("the end of all objects", SETTLED, || {
            let all = "deployments,services,controllerrevisions,endpointslices,pods,daemonsets";
            let left = self.space.run(&["get", all, "-l", "wick.dev/model", "-o", "name"])?;
            Ok(left.trim().is_empty().then_some(()))
        })
    }

    /// The pods of a part of the release.
    pub fn pods_of_release(&self, part: &str) -> anyhow::Result<Vec<Value>> {
        let selector = format!("app.kubernetes.io/component={part}");
        let words = ["--namespace", NAMESPACE, "pods", "-l", &selector];
        let list = self.cluster.kubectl.get(&words)?.unwrap_or_default();
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// The metrics of each activator, as text.
    pub fn activator_metrics(&self) -> anyhow::Result<Vec<String>> {
        let read = |pod: &Value| {
            let ip = pod["status"]["podIP"].as_str().context("an activator without an address")?;
            Ok(http::get(SocketAddr::new(ip.parse()?, METRICS), "/metrics")?.text())
        };
        self.pods_of_release("activator")?.iter().map(read).collect()
    }

    pub fn end(self) -> anyhow::Result<()> {
        self.space.run(&["delete", "models", "--all"])?;
        self.space.delete()
    }

    fn digest(&self, reference: &str) -> anyhow::Result<String> {
        let filter = format!("name=={reference}");
        let listed = self.cluster.ctr()?.args(["images", "ls", &filter]).output()?;
        let listed = String::from_utf8(listed.stdout)?;
        let digest = listed.split_whitespace().find(|word| word.starts_with("sha256:"));
        Ok(digest.with_context(|| format!("no image {reference}"))?.to_owned())
    }
}
