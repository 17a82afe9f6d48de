//! Models in a real cluster, with operator and activator as the chart installs them: they sleep
//! and wake, move to new versions and back, and no request is lost meanwhile.

mod support;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use support::{classify, say};
use wick_e2e::chart::{self, NAMESPACE, Release};
use wick_e2e::cluster::Cluster;
use wick_e2e::kubectl::Namespace;
use wick_e2e::package;
use wick_e2e::wait::wait;

/// Longest until a Model has become what it should.
const SETTLED: Duration = Duration::from_secs(90);

/// Between two requests of a client that calls now and then.
const TRICKLE: Duration = Duration::from_millis(100);

const PYTHON: &str = "import os\n\nprint(os.name)\n";

/// A cluster with the release, and a namespace for Models.
struct Stage {
    cluster: Cluster,
    release: Release,
    space: Namespace,
    scratch: tempfile::TempDir,
}

/// Somebody who calls all the time.
struct Caller {
    over: Arc<AtomicBool>,
    calls: Vec<thread::JoinHandle<(u32, Vec<String>)>>,
}

// === impl Stage ===

impl Stage {
    fn new(name: &str) -> anyhow::Result<Self> {
        let cluster = Cluster::attach()?;
        let release = chart::install(&cluster, &json!({}))?;
        let space = cluster.kubectl.namespace(name)?;
        let enforce = "pod-security.kubernetes.io/enforce=restricted";
        cluster.kubectl.run(&["label", "namespace", &space.name, enforce])?;
        Ok(Self { cluster, release, space, scratch: tempfile::tempdir()? })
    }

    /// The real Magika, as a version of its own that the node has, by its digest.
    fn image(&self, version: &str) -> anyhow::Result<String> {
        let folder = self.scratch.path().join(version);
        package::example_as("filetype", version, &folder)?;
        let reference = format!("docker.io/models/filetype:{version}");
        let tar = self.scratch.path().join(format!("{version}.tar"));
        package::pack(&folder, &reference, &tar)?;
        self.cluster.import_archive(&tar)?;
        let digest = self.digest(&reference)?;
        let pinned = format!("docker.io/models/filetype@{digest}");
        let tagged =
            self.cluster.ctr()?.args(["images", "tag", "--force", &reference, &pinned]).status()?;
        ensure!(tagged.success(), "tag {pinned}");
        Ok(pinned)
    }

    fn digest(&self, reference: &str) -> anyhow::Result<String> {
        let filter = format!("name=={reference}");
        let listed = self.cluster.ctr()?.args(["images", "ls", &filter]).output()?;
        let listed = String::from_utf8(listed.stdout)?;
        let digest = listed.split_whitespace().find(|word| word.starts_with("sha256:"));
        Ok(digest.with_context(|| format!("no image {reference}"))?.to_owned())
    }

    fn apply(&self, image: &str, more: &Value) -> anyhow::Result<()> {
        let mut spec = json!({
            "package": {"image": image},
            "scale": {"idleTimeout": "10s", "scaleDownDelay": "5s", "stableWindow": "10s"},
        });
        for (field, value) in more.as_object().context("no fields")? {
            spec[field] = value.clone();
        }
        let model = json!({
            "apiVersion": "wick.dev/v1alpha1", "kind": "Model",
            "metadata": {"name": "filetype"}, "spec": spec,
        });
        self.space.apply(&model.to_string())
    }

    /// Waits until a condition of the Model has this reason.
    fn until(&self, type_: &str, reason: &str) -> anyhow::Result<Value> {
        let what = format!("{type_} because of {reason}");
        let waited = self.space.wait("model/filetype", &what, SETTLED, |model| {
            let conditions = model["status"]["conditions"].as_array().into_iter().flatten();
            let mut found =
                conditions.filter(|one| one["type"] == type_ && one["reason"] == reason);
            Ok(found.next().map(|_| model.clone()))
        });
        waited.map_err(|error| {
            anyhow::anyhow!("{error:#}\n{}\n{}", self.space.dump(), self.release.dump())
        })
    }

    fn until_gone(&self) -> anyhow::Result<()> {
        self.until("Ready", "Cold")?;
        wait("the end of the pods", SETTLED, || Ok((self.pods()? == 0).then_some(())))
    }

    fn pods(&self) -> anyhow::Result<usize> {
        let pods = self.space.run(&["get", "pods", "-o", "name"])?;
        Ok(pods.lines().count())
    }

    fn address(&self) -> anyhow::Result<SocketAddr> {
        let ip = self.space.wait("service/filetype", "an address", SETTLED, |service| {
            let ip = service["spec"]["clusterIP"].as_str();
            ip.map(|ip| ip.parse::<IpAddr>().context("the Service's address")).transpose()
        })?;
        Ok((ip, 80).into())
    }

    /// Ends the pods of a part of the release, at once or in peace.
    fn release_pods(&self, part: &str, at_once: bool) -> anyhow::Result<()> {
        let selector = format!("app.kubernetes.io/component={part}");
        let mut words = vec!["--namespace", NAMESPACE, "delete", "pods", "-l", &selector];
        if at_once {
            words.extend(["--grace-period=0", "--force"]);
        }
        self.cluster.kubectl.run(&words)?;
        self.release.wait_until_available()
    }

    fn end(self) -> anyhow::Result<()> {
        self.space.delete()
    }
}

// === impl Caller ===

impl Caller {
    fn start(addr: SocketAddr, clients: usize) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let call = move |over: Arc<AtomicBool>| {
            let (mut answered, mut lost) = (0, Vec::new());
            while !over.load(Ordering::Relaxed) {
                match classify(addr, PYTHON) {
                    Ok(label) if label == "python" => answered += 1,
                    Ok(label) => lost.push(label),
                    Err(error) => lost.push(format!("after {answered}: {error:#}")),
                }
                thread::sleep(TRICKLE);
            }
            (answered, lost)
        };
        let calls = (0..clients)
            .map(|_| {
                let over = Arc::clone(&over);
                thread::spawn(move || call(over))
            })
            .collect();
        Self { over, calls }
    }

    /// Ends them and gives how many were answered. Says what was lost.
    fn stop(self, what: &str) -> anyhow::Result<u32> {
        self.over.store(true, Ordering::Relaxed);
        let (mut answered, mut lost) = (0, Vec::new());
        for call in self.calls {
            let (ok, bad) = call.join().map_err(|_| anyhow::anyhow!("a client has panicked"))?;
            answered += ok;
            lost.extend(bad);
        }
        say(&format!("{what}: {answered} answered, {} lost", lost.len()));
        ensure!(lost.is_empty(), "{what}: {lost:?}");
        Ok(answered)
    }
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_model_sleeps_and_wakes_for_whoever_calls() -> anyhow::Result<()> {
    let stage = Stage::new("sleep")?;
    stage.apply(&stage.image("9.2.0")?, &json!({}))?;
    let addr = stage.address()?;
    // Before the first pod is ready, too.
    ensure!(classify(addr, PYTHON)? == "python");
    let model = stage.until("Ready", "Serving")?;
    let url = format!("http://filetype.{}.svc", stage.space.name);
    assert_eq!(model["status"]["address"]["url"], url.as_str());
    stage.until_gone()?;
    for _ in 0..2 {
        let asked = Instant::now();
        ensure!(classify(addr, PYTHON)? == "python");
        say(&format!("a cold model answered within {} ms", asked.elapsed().as_millis()));
        stage.until("Ready", "Serving")?;
        stage.until_gone()?;
    }
    // A crowd at a cold model: nobody is sent away, and nobody waits for a pod of his own.
    let callers: Vec<_> = (0..200).map(|_| thread::spawn(move || classify(addr, PYTHON))).collect();
    let mut lost = Vec::new();
    for caller in callers {
        match caller.join() {
            Ok(Ok(label)) if label == "python" => {}
            other => lost.push(format!("{other:?}")),
        }
    }
    say(&format!("200 at once to a cold model: {} lost", lost.len()));
    assert_eq!(lost, Vec::<String>::new());
    stage.space.run(&["delete", "model/filetype"])?;
    wait("the end of all objects", SETTLED, || {
        let all = "deployments,services,controllerrevisions,endpointslices,pods";
        let left = stage.space.run(&["get", all, "-l", "wick.dev/model", "-o", "name"])?;
        Ok(left.trim().is_empty().then_some(()))
    })?;
    stage.end()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn traffic_moves_to_a_new_version_and_back_and_nothing_is_lost() -> anyhow::Result<()> {
    let stage = Stage::new("rollout")?;
    let steps = json!({"rollout": {
        "steps": [{"weight": 30, "hold": "5s"}],
        "gates": {"minRequests": 20, "window": "10s", "maxLatencyIncrease": "400%"},
        "progressDeadline": "30s",
    }});
    stage.apply(&stage.image("9.3.0")?, &steps)?;
    stage.until("Ready", "Serving")?;
    let addr = stage.address()?;
    let callers = Caller::start(addr, 4);
    let first = stage.until("Progressing", "Complete")?["status"]["active"]["name"].clone();

    stage.apply(&stage.image("9.3.1")?, &steps)?;
    let split = stage.until("Progressing", "RollingOut")?;
    assert_eq!(split["status"]["candidate"]["weight"], 30);
    assert_eq!(split["status"]["active"]["name"], first);
    let second = stage.until("Progressing", "Complete")?["status"]["active"]["name"].clone();
    assert_ne!(first, second);

    // The operator dies, and the next one goes on.
    stage.release_pods("operator", true)?;

    // Back, by a command.
    let config = stage.cluster.kubectl.kubeconfig().display().to_string();
    let undo = ["rollout", "undo", "filetype", "-n", &stage.space.name];
    package::wick_with(&undo, &[("KUBECONFIG", &config)])?;
    stage.until("Degraded", "Undone")?;
    let back = stage.until("Progressing", "Complete")?;
    assert_eq!(back["status"]["active"]["name"], first);

    // One that never becomes ready gets nothing, and is left.
    let nowhere = format!("docker.io/models/filetype@sha256:{}", "a".repeat(64));
    stage.apply(&nowhere, &steps)?;
    stage.until("Degraded", "NeverReady")?;
    let left = stage.until("Progressing", "Complete")?;
    assert_eq!(left["status"]["active"]["name"], first);
    callers.stop("a canary, a killed operator, an undo and a version that never starts")?;
    stage.end()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn the_same_name_in_two_namespaces_is_two_models() -> anyhow::Result<()> {
    let one = Stage::new("one")?;
    let other = one.cluster.kubectl.namespace("other")?;
    one.apply(&one.image("9.4.0")?, &json!({}))?;
    one.until("Ready", "Serving")?;
    let model = json!({
        "apiVersion": "wick.dev/v1alpha1", "kind": "Model", "metadata": {"name": "filetype"},
        "spec": {"package": {"image": one.image("9.4.0-b")?}},
    });
    other.apply(&model.to_string())?;
    let port = |model: &Value| model["status"]["activator"]["port"].as_i64();
    let theirs = other.wait("model/filetype", "a port", SETTLED, |model| Ok(port(model)))?;
    let ours = one.space.wait("model/filetype", "a port", SETTLED, |model| Ok(port(model)))?;
    assert_ne!(ours, theirs);
    other.delete()?;
    ensure!(classify(one.address()?, PYTHON)? == "python");
    one.end()
}
