//! Models in a real cluster, with operator and activator as the chart installs them: they sleep
//! and wake, move to new versions and back, and no request is lost meanwhile.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::{Value, json};
use wick_e2e::caller::Caller;
use wick_e2e::filetype::{PYTHON, classify, classify_within};
use wick_e2e::package;
use wick_e2e::say;
use wick_e2e::stage::{SETTLED, Stage};

/// Between two requests of a client that calls now and then.
const TRICKLE: Duration = Duration::from_millis(100);

/// Longest wait for an answer of the last of a crowd: all others are before it, on two cores
/// that also run a cluster, and without an optimised tract.
const IN_A_CROWD: Duration = Duration::from_secs(40);

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
    let ask = move || classify_within(addr, PYTHON, IN_A_CROWD);
    let callers: Vec<_> = (0..500).map(|_| thread::spawn(ask)).collect();
    let mut lost = Vec::new();
    for caller in callers {
        match caller.join() {
            Ok(Ok(label)) if label == "python" => {}
            other => lost.push(format!("{other:?}")),
        }
    }
    say(&format!("500 at once to a cold model: {} lost", lost.len()));
    assert_eq!(lost, Vec::<String>::new());
    stage.space.run(&["delete", "model/filetype"])?;
    stage.until_nothing_is_left()?;
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
    let callers = Caller::start(addr, 4, |_| TRICKLE);
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
    callers.stop_without_loss(
        "a canary, a killed operator, an undo and a version that never starts",
    )?;
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
