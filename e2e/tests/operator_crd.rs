//! The definition of `Model` at a real API server: what it fills in, what it shows, and what it
//! refuses; and whether it takes the objects that `wick operator render` makes of a Model.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use wick_e2e::cluster::Cluster;
use wick_e2e::kubectl::Namespace;
use wick_e2e::wait::wait;

/// Longest until the API server knows a new definition.
const ESTABLISHED: Duration = Duration::from_secs(30);

/// What a tag of the samples stands for.
const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// A Model with `{}` in the place of its spec, but for the package.
const MODEL: &str = "
apiVersion: wick.dev/v1alpha1
kind: Model
metadata: {name: filetype}
spec:
  package: {image: 'registry.example/vision/filetype:1.2.0'}
";

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path)
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is no text", path.display()))
}

/// The cluster with the definition in it.
fn cluster() -> anyhow::Result<Cluster> {
    let cluster = Cluster::attach()?;
    let crd = deploy("crds/wick.dev_models.yaml");
    cluster.kubectl.run(&["apply", "--server-side", "-f", text(&crd)?])?;
    wait("the definition", ESTABLISHED, || {
        let found = cluster.kubectl.get(&["crd/models.wick.dev"])?.unwrap_or_default();
        let conditions = found["status"]["conditions"].as_array().into_iter().flatten();
        let problem = conditions
            .clone()
            .find(|one| one["type"] == "NonStructuralSchema" || one["reason"] == "NotAccepted");
        ensure!(problem.is_none(), "{problem:?}");
        let ready = |one: &Value| one["type"] == "Established" && one["status"] == "True";
        Ok(conditions.clone().any(ready).then_some(()))
    })?;
    Ok(cluster)
}

fn samples() -> anyhow::Result<Vec<PathBuf>> {
    let folder = deploy("samples");
    let entries = fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    ensure!(paths.len() >= 4, "only {} samples", paths.len());
    Ok(paths)
}

/// `wick operator render` of a file.
fn render(file: &Path, args: &[&str]) -> anyhow::Result<Output> {
    let wick = env::var_os("WICK_BIN").context("WICK_BIN is not set: run `cargo xtask e2e`")?;
    let mut command = Command::new(wick);
    command.args(["operator", "render", "--output", "json", "-f"]).arg(file).args(args);
    command.output().context("run wick")
}

/// The objects of a sample.
fn rendered(file: &Path) -> anyhow::Result<Value> {
    // One that names a digest says so if another is given.
    let pinned = fs::read_to_string(file)?.contains("@sha256:");
    let output = render(file, if pinned { &[] } else { &["--digest", DIGEST] })?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{}: {said}", file.display());
    serde_json::from_str(&said).context("read what was rendered")
}

/// The error of kubectl for a manifest; a failure if it is taken.
fn refusal(space: &Namespace, manifest: &str) -> anyhow::Result<String> {
    match space.apply(manifest) {
        Ok(()) => anyhow::bail!("the API server takes {manifest}"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn every_sample_is_taken_and_its_defaults_are_filled_in() -> anyhow::Result<()> {
    let cluster = cluster()?;
    let space = cluster.kubectl.namespace("operator")?;
    for sample in samples()? {
        // Twice is as good as once.
        for _ in 0..2 {
            space.run(&["apply", "-f", text(&sample)?])?;
        }
    }
    let model = space.get("model/filetype")?.context("no Model")?;
    let spec = &model["spec"];
    assert_eq!(spec["scale"]["minReplicas"], 0);
    assert_eq!(spec["scale"]["idleTimeout"], "60s");
    assert_eq!(spec["scale"]["hold"], json!({"maxRequests": 1000, "timeout": "60s"}));
    assert_eq!(spec["rollout"]["steps"][1]["weight"], 50);
    assert_eq!(spec["rollout"]["gates"]["maxLatencyIncrease"], "50%");
    assert_eq!(spec["prefetch"], json!({"policy": "Never"}));
    // What is written in part keeps the other defaults.
    let canary = space.get("model/ocr")?.context("no Model")?;
    assert_eq!(canary["spec"]["scale"]["stableWindow"], "60s");
    assert_eq!(canary["spec"]["rollout"]["steps"][0]["promotion"], "Automatic");
    assert_eq!(canary["spec"]["rollout"]["gates"]["onTooFewRequests"], "Advance");
    space.run(&["delete", "models", "--all"]).map(drop)
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn columns_short_name_and_explanations_are_there() -> anyhow::Result<()> {
    let cluster = cluster()?;
    let space = cluster.kubectl.namespace("operator")?;
    space.apply(MODEL)?;
    let status = json!({"status": {
        "observedGeneration": 1,
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "Cold", "message": "no pod runs",
            "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1,
        }],
        "active": {
            "name": "filetype-bcdfghjk", "image": format!("registry.example/filetype@{DIGEST}"),
            "weight": 100, "replicas": 2, "readyReplicas": 1,
        },
        "readyReplicas": 1,
        "device": "gpu:0",
        "address": {"url": "http://filetype.vision.svc"},
    }});
    let patch = status.to_string();
    space.run(&["patch", "mdl/filetype", "--subresource=status", "--type=merge", "-p", &patch])?;
    let table = space.run(&["get", "mdl", "-o", "wide"])?;
    let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let header = lines.next().context("no table")?;
    let columns = ["NAME", "READY", "REASON", "REVISION", "PODS", "DEVICE", "URL", "IMAGE", "AGE"];
    assert_eq!(header, columns);
    let row = lines.next().context("no row")?;
    let expected = [
        "filetype",
        "True",
        "Cold",
        "filetype-bcdfghjk",
        "1",
        "gpu:0",
        "http://filetype.vision.svc",
        "registry.example/vision/filetype:1.2.0",
    ];
    assert_eq!(row[..8], expected);
    // A status comes by its own road only, and a change of the spec makes a new generation.
    let forged = format!("{MODEL}status: {{device: forged}}\n");
    space.apply(&forged.replace("'registry", "'other"))?;
    let model = space.get("model/filetype")?.context("no Model")?;
    assert_eq!(model["status"]["device"], "gpu:0");
    assert_eq!(model["metadata"]["generation"], 2);
    let explained = space.run(&["explain", "model.spec.scale.idleTimeout"])?;
    assert!(explained.contains("How long nobody must have called"), "{explained}");
    space.run(&["delete", "models", "--all"]).map(drop)
}

/// What is wrong below `spec`, and the field that both kubectl and `wick operator render` must
/// name.
const WRONG: &[(&str, &str)] = &[
    ("modell: x", "spec.modell"),
    ("scale: {minReplica: 1}", "spec.scale.minReplica"),
    ("scale: {minReplicas: -1}", "spec.scale.minReplicas"),
    ("scale: {minReplicas: '1'}", "spec.scale.minReplicas"),
    ("scale: {minReplicas: 4, maxReplicas: 3}", "spec.scale.maxReplicas"),
    ("scale: {maxReplicas: 1001}", "spec.scale.maxReplicas"),
    ("scale: {idleTimeout: soon}", "spec.scale.idleTimeout"),
    ("scale: {idleTimeout: 60}", "spec.scale.idleTimeout"),
    ("scale: {idleTimeout: 0s}", "spec.scale.idleTimeout"),
    ("scale: {idleTimeout: 25h}", "spec.scale.idleTimeout"),
    ("scale: {stableWindow: 2h}", "spec.scale.stableWindow"),
    ("scale: {panicWindow: 2m}", "spec.scale.panicWindow"),
    ("scale: {panicThreshold: 200}", "spec.scale.panicThreshold"),
    ("scale: {scaleDownDelay: 61m}", "spec.scale.scaleDownDelay"),
    ("scale: {hold: {timeout: 11m}}", "spec.scale.hold.timeout"),
    ("scale: {horizontalPodAutoscaler: {}}", "spec.scale.horizontalPodAutoscaler"),
    ("env: [{name: A}]", "spec.env[0]"),
    ("env: [{name: A, value: '1'}, {name: A, value: '2'}]", "spec.env[1]"),
    ("env: [{name: 1A, value: '1'}]", "spec.env[0].name"),
    ("env: [{name: A, value: 1}]", "spec.env[0].value"),
    ("env: [{name: A, valueFrom: {}}]", "spec.env[0].valueFrom"),
    ("network: [db]", "spec.network[0]"),
    ("network: ['db:1', 'db:70000']", "spec.network[1]"),
    ("resources: {limits: {memory: 1 GB}}", "spec.resources.limits.memory"),
    ("resources: {limits: {memory: true}}", "spec.resources.limits.memory"),
    ("devices: [{name: npu}]", "spec.devices[0]"),
    ("scheduling: {tolerations: [{value: a}]}", "spec.scheduling.tolerations[0].key"),
    (
        "scheduling: {tolerations: [{key: a, operator: Exists, value: b}]}",
        "spec.scheduling.tolerations[0].value",
    ),
    (
        "scheduling: {tolerations: [{key: a, operator: Exists, tolerationSeconds: 5}]}",
        "spec.scheduling.tolerations[0].tolerationSeconds",
    ),
    ("scheduling: {tolerations: [{key: a, effect: No}]}", "spec.scheduling.tolerations[0].effect"),
    ("rollout: {steps: [{weight: 50}, {weight: 50}]}", "spec.rollout.steps"),
    ("rollout: {steps: [{weight: 50}, {weight: 10}]}", "spec.rollout.steps"),
    ("rollout: {steps: [{weight: 100}]}", "spec.rollout.steps[0].weight"),
    ("rollout: {steps: [{weight: 5, hold: 25h}]}", "spec.rollout.steps[0].hold"),
    ("rollout: {steps: {weight: 5}}", "spec.rollout.steps"),
    ("rollout: {onFailure: Retry}", "spec.rollout.onFailure"),
    ("rollout: {paused: 'yes'}", "spec.rollout.paused"),
    ("rollout: {progressDeadline: 1s}", "spec.rollout.progressDeadline"),
    ("rollout: {gates: {window: 2h}}", "spec.rollout.gates.window"),
    ("rollout: {gates: {maxErrorRateIncrease: '1'}}", "spec.rollout.gates.maxErrorRateIncrease"),
    ("prefetch: {policy: Sometimes}", "spec.prefetch.policy"),
    ("imagePullSecrets: [{name: Registry}]", "spec.imagePullSecrets[0].name"),
    ("serviceAccountName: ''", "spec.serviceAccountName"),
];

/// What of a manifest the API server does not know, and calls so before it looks at anything else:
/// below a map in the place of a list, and a name with a letter missing.
const UNKNOWN: [(&str, &str); 2] =
    [("steps: {weight", "spec.rollout.steps.weight"), ("{imag: ", "spec.package.imag")];

/// Wrong Models, and their fields.
fn wrong() -> Vec<(String, &'static str)> {
    let below = WRONG.iter().map(|(rest, path)| (format!("{MODEL}  {rest}\n"), *path));
    let instead = |old: &str, new: &str| MODEL.replace(old, new);
    let long = format!("name: {}}}", "m".repeat(36));
    let elsewhere = [
        (instead("name: filetype}", "name: 1st}"), "metadata.name"),
        (instead("name: filetype}", &long), "metadata.name"),
        (instead("image: ", "imag: "), "spec.package.image"),
        (instead("filetype:1.2.0", "filetype"), "spec.package.image"),
        (instead("filetype:1.2.0", "file type:1"), "spec.package.image"),
        (instead("'registry.example/vision/filetype:1.2.0'", "7"), "spec.package.image"),
    ];
    below.chain(elsewhere).collect()
}

/// Whether a text has the path as a whole, and not as the beginning of a longer one.
fn names(text: &str, path: &str) -> bool {
    let longer = |c: char| c.is_alphanumeric() || c == '.' || c == '[';
    text.match_indices(path).any(|(at, _)| !text[at + path.len()..].starts_with(longer))
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn what_is_wrong_is_refused_with_its_path_here_and_there() -> anyhow::Result<()> {
    let cluster = cluster()?;
    let space = cluster.kubectl.namespace("operator")?;
    space.apply(MODEL)?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("model.yaml");
    let mut problems = Vec::new();
    for (manifest, path) in wrong() {
        let said = refusal(&space, &manifest).unwrap_or_else(|error| error.to_string());
        let unknown = UNKNOWN.iter().find(|(text, _)| manifest.contains(text));
        let expected = unknown.map_or(path, |(_, path)| path);
        if !names(&said, expected) {
            problems.push(format!("kubectl does not name {expected}: {said}"));
        }
        fs::write(&file, &manifest)?;
        let output = render(&file, &["--digest", DIGEST])?;
        let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let mistakes = said["mistakes"].as_array().into_iter().flatten();
        if !mistakes.clone().any(|mistake| mistake["path"] == path) {
            problems.push(format!("wick does not name {path}: {said}"));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    space.run(&["delete", "models", "--all"]).map(drop)
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn what_is_rendered_is_taken_and_keeps_to_restricted_pod_security() -> anyhow::Result<()> {
    let cluster = cluster()?;
    let space = cluster.kubectl.namespace("operator")?;
    let enforce = "pod-security.kubernetes.io/enforce=restricted";
    cluster.kubectl.run(&["label", "namespace", &space.name, enforce])?;
    let folder = tempfile::tempdir()?;
    let (objects, pod_file) = (folder.path().join("objects.json"), folder.path().join("pod.json"));
    for sample in samples()? {
        let list = rendered(&sample)?;
        fs::write(&objects, list.to_string())?;
        let apply = ["apply", "--server-side", "--field-manager=wick-operator", "--dry-run=server"];
        space.run(&[&apply[..], &["-f", text(&objects)?]].concat())?;
        let items = list["items"].as_array().context("no objects")?;
        let deployment = items.iter().find(|item| item["kind"] == "Deployment");
        let mut pod = deployment.context("no Deployment")?["spec"]["template"].clone();
        pod["apiVersion"] = "v1".into();
        pod["kind"] = "Pod".into();
        pod["metadata"]["name"] = "probe".into();
        fs::write(&pod_file, pod.to_string())?;
        space.run(&["create", "--dry-run=server", "-f", text(&pod_file)?])?;
    }
    Ok(())
}
