//! A fleet in a cluster, with hub, broker and agent as the chart installs them: the policy is `Site`s and
//! `Rollout`s, as Argo CD and Flux deliver them, and the site is the cluster itself, whose operator runs what
//! the agent applies.

use std::env;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use wick_e2e::caller::Caller;
use wick_e2e::chart::{self, NAMESPACE};
use wick_e2e::cluster::Cluster;
use wick_e2e::distribution;
use wick_e2e::filetype::{PYTHON, classify};
use wick_e2e::stage::{SETTLED, Stage};
use wick_e2e::wait::wait;

/// What the node knows mosquitto's image as.
const MOSQUITTO: &str = "docker.io/local/mosquitto:e2e";

/// The class of the volumes that the test makes by hand, since nothing else makes any here.
const CLASS: &str = "wick-e2e-fleet";

/// Who runs hub and agent.
const USER: u32 = 65532;

/// A token that whoever runs the hub has made.
const ADMIN: &str = "wick-e2e-0123456789abcdef0123456789abcdef";

const SITE: &str = "plant-1";

/// Longest until a hub or an agent is ready, or a rollout has ended.
const LIMIT: Duration = Duration::from_secs(120);

/// Between two requests of a client.
const GAP: Duration = Duration::from_millis(200);

struct Fleet<'a> {
    stage: &'a Stage,
    folder: tempfile::TempDir,
    hub: IpAddr,
}

impl<'a> Fleet<'a> {
    /// A hub with a broker, known by its Service's address, as there are no names here.
    fn start(stage: &'a Stage) -> anyhow::Result<Self> {
        let unpacked = env::var("WICK_TEST_MOSQUITTO").context("run `cargo xtask e2e`")?;
        stage.cluster.import(&distribution::mosquitto(Path::new(&unpacked), MOSQUITTO)?)?;
        let folder = tempfile::tempdir()?;
        for name in ["one", "two"] {
            volume(stage, folder.path(), name)?;
        }
        apply(stage, &secret("wick-hub-admin", &json!({"token": ADMIN})))?;
        stage.release.apply(&values(&json!(["localhost"]), &json!({})))?;
        let service = get(stage, "service/wick-hub")?.context("no Service of the hub")?;
        let hub = service["spec"]["clusterIP"].as_str().context("it has no address")?;
        let hub: IpAddr = hub.parse()?;
        // The address is a new name: hub and broker get new certificates before they start again.
        stage.release.apply(&values(&json!([hub]), &json!({})))?;
        let fleet = Self { stage, folder, hub };
        fleet.until_current("wick-hub")?;
        let ca = ["exec", "wick-hub-0", "-c", "hub", "--", "wick", "hub", "ca"];
        let ca = fleet.kubectl(&[&ca[..], &["--dir", "/state/fleet"]].concat())?;
        fs::write(fleet.folder.path().join("ca.crt"), ca)?;
        Ok(fleet)
    }

    /// The cluster itself as a site.
    fn enrol(&self) -> anyhow::Result<()> {
        let made = self.wick(&["enrol-token", SITE])?;
        let ca = fs::read_to_string(self.folder.path().join("ca.crt"))?;
        let enrol = json!({"token": made["token"], "ca.crt": ca});
        apply(self.stage, &secret("wick-agent-enrol", &enrol))?;
        let agent = json!({
            "enabled": true, "site": SITE, "hub": format!("https://{}:8443", self.hub),
            "labels": {"region": "south"}, "memory": "512MiB", "disk": "1GiB",
            "namespace": self.stage.space.name, "persistence": {"storageClass": CLASS},
            "extraArgs": ["--telemetry=1s"],
        });
        self.stage.release.apply(&values(&json!([self.hub]), &agent))?;
        self.until_current("wick-agent")
    }

    /// `wick fleet …`, as somebody at the hub's address gives it.
    fn wick(&self, words: &[&str]) -> anyhow::Result<Value> {
        let mut wick = Command::new(env::var("WICK_BIN").context("run `cargo xtask e2e`")?);
        wick.arg("fleet").args(words).args(["--output", "json"]);
        wick.env("WICK_HUB", format!("https://{}:8443", self.hub)).env("WICK_TOKEN", ADMIN);
        wick.env("WICK_HUB_CA", self.folder.path().join("ca.crt"));
        let output = wick.output().context("run wick")?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "wick fleet {words:?}: {error}");
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Waits until the one pod of a StatefulSet is that of its newest template, and ready.
    fn until_current(&self, name: &str) -> anyhow::Result<()> {
        let waited = wait(&format!("{name} ready"), LIMIT, || {
            let set = get(self.stage, &format!("statefulset/{name}"))?.unwrap_or_default();
            let status = &set["status"];
            let current = status["observedGeneration"] == set["metadata"]["generation"]
                && status["currentRevision"] == status["updateRevision"]
                && status["readyReplicas"] == 1;
            Ok(current.then_some(()))
        });
        self.explained(waited)
    }

    /// Waits until the condition `Ready` of an object has this reason; the object.
    fn until(&self, object: &str, reason: &str) -> anyhow::Result<Value> {
        let waited = wait(&format!("{object} {reason}"), LIMIT, || {
            let Some(found) = get(self.stage, object)? else { return Ok(None) };
            let conditions = found["status"]["conditions"].as_array().into_iter().flatten();
            let newest = found["status"]["observedGeneration"] == found["metadata"]["generation"];
            let mut ready = conditions.filter(|one| one["type"] == "Ready");
            let so = newest && ready.any(|one| one["reason"] == reason);
            Ok(so.then_some(found))
        });
        self.explained(waited)
    }

    fn explained<T>(&self, waited: anyhow::Result<T>) -> anyhow::Result<T> {
        waited.map_err(|error| {
            let shown =
                |words: &[&str]| self.kubectl(words).unwrap_or_else(|error| format!("{error:#}\n"));
            let mut text = shown(&["get", "sites,rollouts", "-o", "wide"]);
            for pod in ["wick-hub-0", "wick-agent-0"] {
                text += &shown(&["describe", "pod", pod]);
                text += &shown(&["logs", "--all-containers", "--prefix", "--tail=40", pod]);
            }
            text += &self.stage.space.run(&["get", "models", "-o", "wide"]).unwrap_or_default();
            anyhow::anyhow!("{error:#}\n{text}")
        })
    }

    fn kubectl(&self, words: &[&str]) -> anyhow::Result<String> {
        let words = [&["--namespace", NAMESPACE][..], words].concat();
        self.stage.cluster.kubectl.run(&words)
    }

    /// Hub and agent go, with what they kept. The operator stays for others.
    fn end(self) -> anyhow::Result<()> {
        self.kubectl(&["delete", "sites,rollouts", "--all"])?;
        self.stage.release.apply(&json!({}))?;
        let claims = ["persistentvolumeclaims", "--all", "--wait=true"];
        self.kubectl(&[&["delete"][..], &claims].concat())?;
        let class = format!("wick.dev/e2e={CLASS}");
        self.stage.cluster.kubectl.run(&["delete", "persistentvolumes", "-l", &class]).map(drop)
    }
}

/// The chart's values, with a hub of these names.
fn values(names: &Value, agent: &Value) -> Value {
    let hub = json!({
        "enabled": true, "names": names, "adminTokenSecret": "wick-hub-admin",
        "mosquitto": {"image": MOSQUITTO, "pullPolicy": "Never"},
        "persistence": {"storageClass": CLASS},
    });
    json!({"hub": hub, "agent": agent})
}

fn secret(name: &str, values: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "stringData": values,
        "metadata": {"name": name, "namespace": NAMESPACE},
    })
}

/// A folder of the node as a volume that any claim of the class may have.
fn volume(stage: &Stage, folder: &Path, name: &str) -> anyhow::Result<()> {
    let path = folder.join(name);
    fs::create_dir(&path)?;
    chown(&path, Some(USER), Some(USER))?;
    let spec = json!({
        "capacity": {"storage": "4Gi"}, "accessModes": ["ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": "Retain", "storageClassName": CLASS,
        "hostPath": {"path": path},
    });
    let metadata = json!({"name": format!("{CLASS}-{name}"), "labels": {"wick.dev/e2e": CLASS}});
    apply(
        stage,
        &json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": metadata, "spec": spec,
        }),
    )
}

fn apply(stage: &Stage, object: &Value) -> anyhow::Result<()> {
    stage.cluster.kubectl.run_with(&["apply", "-f", "-"], &object.to_string()).map(drop)
}

fn get(stage: &Stage, object: &str) -> anyhow::Result<Option<Value>> {
    stage.cluster.kubectl.get(&["--namespace", NAMESPACE, object])
}

fn site(labels: &Value) -> Value {
    json!({
        "apiVersion": "wick.dev/v1alpha1", "kind": "Site",
        "metadata": {"name": SITE, "namespace": NAMESPACE}, "spec": {"labels": labels},
    })
}

fn rollout(name: &str, image: &str, waves: &Value) -> Value {
    let model = json!({"name": "filetype", "image": image, "disk": "16Mi", "memory": "64Mi"});
    json!({
        "apiVersion": "wick.dev/v1alpha1", "kind": "Rollout",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"select": {"region": "north"}, "models": [model], "waves": waves},
    })
}

/// An API server with the real definitions of Argo CD and Flux takes the examples as they are, and one with
/// ours the example of a repository.
#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn argo_cd_and_flux_take_the_examples() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let kubectl = &cluster.kubectl;
    let mut wick = Command::new(env::var("WICK_BIN").context("run `cargo xtask e2e`")?);
    let ours = wick.args(["hub", "crd"]).output()?;
    kubectl.run_with(&["apply", "--server-side", "-f", "-"], &String::from_utf8(ours.stdout)?)?;
    let files = env::var_os("WICK_E2E_GITOPS").context("run `cargo xtask e2e`")?;
    let files: Vec<_> = env::split_paths(&files).map(|file| file.display().to_string()).collect();
    for file in &files {
        kubectl.run(&["apply", "--server-side", "-f", file])?;
    }
    kubectl.run(&["wait", "--for=condition=Established", "--timeout=60s", "crds", "--all"])?;
    for namespace in ["argocd", "flux-system"] {
        kubectl.run(&["create", "namespace", namespace])?;
    }
    let examples = chart::folder()?.join("../../fleet");
    let takes = |path: &str, text: Option<&str>| {
        let path = examples.join(path).display().to_string();
        let words = ["create", "--dry-run=server", "--validate=strict", "-f"];
        match text {
            Some(text) => kubectl.run_with(&[&words[..], &["-"]].concat(), text),
            None => kubectl.run(&[&words[..], &[&path]].concat()),
        }
    };
    for path in ["argocd.yaml", "flux.yaml", "repository/sites", "repository/rollouts"] {
        takes(path, None)?;
    }
    // That they are looked at is seen by one that is wrong.
    let flux = fs::read_to_string(examples.join("flux.yaml"))?;
    ensure!(takes("", Some(&flux.replace("sourceRef", "source"))).is_err(), "anything is taken");
    for namespace in ["argocd", "flux-system"] {
        kubectl.run(&["delete", "namespace", namespace, "--wait=false"])?;
    }
    for file in &files {
        kubectl.run(&["delete", "-f", file])?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn objects_of_a_cluster_move_a_site_that_is_a_cluster() -> anyhow::Result<()> {
    let stage = Stage::new("fleet")?;
    let images = [stage.image("9.6.1")?, stage.image("9.6.2")?];
    let fleet = Fleet::start(&stage)?;
    apply(&stage, &site(&json!({"region": "north"})))?;
    fleet.until("site/plant-1", "NotEnrolled")?;
    fleet.enrol()?;
    fleet.until("site/plant-1", "Converged")?;

    // Its label is the hub's: the site itself said `south`.
    apply(&stage, &rollout("filetype-1", &images[0], &json!([{}])))?;
    let done = fleet.until("rollout/filetype-1", "Finished")?;
    assert_eq!(done["status"]["phase"], "Finished");
    assert_eq!(done["status"]["sites"]["done"], 1, "{done}");
    let model = stage.space.get("model/filetype")?.context("the agent has applied no Model")?;
    assert_eq!(model["spec"]["package"]["image"], images[0].as_str());
    let addr = stage.address()?;
    assert_eq!(classify(addr, PYTHON)?, "python");

    // What has begun stays as it is: the API server itself refuses anything else.
    let other = rollout("filetype-1", &images[1], &json!([{}]));
    let refused = apply(&stage, &other).map_err(|error| format!("{error:#}"));
    assert!(refused.as_ref().is_err_and(|text| text.contains("it has begun")), "{refused:?}");

    // One that is wrong says what, and holds back what else is new, until it is gone.
    let wrong = rollout("wrong", &images[1], &json!([{}, {"take": 1}]));
    apply(&stage, &wrong)?;
    let said = fleet.until("rollout/wrong", "Invalid")?;
    let message = said["status"]["conditions"][0]["message"].as_str().unwrap_or_default();
    assert!(message.contains("spec.waves[0]"), "{message}");
    let caller = Caller::start(addr, 2, |_| GAP);
    let next = json!([{"gate": {"bake": "1s", "success": "100%"}}]);
    apply(&stage, &rollout("filetype-2", &images[1], &next))?;
    fleet.until("rollout/filetype-2", "Held")?;
    fleet.until("site/plant-1", "Converged")?;
    fleet.kubectl(&["delete", "rollout/wrong"])?;
    fleet.until("rollout/filetype-2", "Finished")?;

    // How requests went is counted by the pods, and no answer comes within a millisecond.
    let slow = json!([{"gate": {"bake": "60s", "errors": "0%", "p99": "1ms"}}]);
    apply(&stage, &rollout("filetype-3", &images[0], &slow))?;
    let back = fleet.until("rollout/filetype-3", "RolledBack")?;
    let message = back["status"]["conditions"][0]["message"].as_str().unwrap_or_default();
    assert!(message.contains("the 99th percentile is "), "{message}");
    fleet.until("site/plant-1", "Converged")?;
    let tally = caller.stop()?;
    assert_eq!(tally.lost, Vec::<String>::new());
    ensure!(tally.answered > 0, "nobody was answered");
    let model = stage.space.get("model/filetype")?.context("the Model has gone")?;
    assert_eq!(model["spec"]["package"]["image"], images[1].as_str());

    // A site that is gone from the fleet's objects is the fleet's still; one that is revoked is not.
    fleet.wick(&["revoke", SITE])?;
    fleet.until("site/plant-1", "Revoked")?;
    assert_eq!(classify(addr, PYTHON)?, "python");
    fleet.end()?;
    wait("the end of hub and agent", SETTLED, || {
        let left = ["wick-hub", "wick-agent"].map(|name| format!("statefulset/{name}"));
        let mut gone = true;
        for name in left {
            gone &= get(&stage, &name)?.is_none();
        }
        Ok(gone.then_some(()))
    })?;
    stage.end()
}
