//! Packages and bare components as pods: what a user of Kubernetes expects of any pod.

mod support;

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use support::{END_TIMEOUT, PORT, Pod, ended, images};
use wick_e2e::cluster::Cluster;
use wick_e2e::http::{self, Request};
use wick_e2e::image::Image;
use wick_e2e::package;
use wick_e2e::wait::wait;

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_package_with_a_real_model_is_ready_when_it_answers() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("shim")?;
    let image = images::filetype(&cluster)?;
    space.apply(&Pod::new("model", image).probed().yaml())?;
    let ip = space.ready_pod("model")?;
    // The very first request after Ready: no second chance.
    let answer = support::classify((ip, PORT).into(), "import os\n\nprint(os.name)\n")?;
    assert_eq!(answer, "python");
    // Live, ready and metrics, as probes and Prometheus want them.
    for path in ["/v2/health/live", "/v2/health/ready", "/metrics"] {
        assert_eq!(http::get((ip, PORT).into(), path)?.status, 200, "{path}");
    }
    assert!(space.logs("model")?.contains("ready"), "{}", space.logs("model")?);
    space.delete()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_bare_wasi_http_component_serves() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("shim")?;
    let image = "docker.io/local/bare-web:1";
    package::import_bare(&cluster, &package::guest("web")?, image)?;
    space.apply(&Pod::new("web", image).probed().yaml())?;
    let ip = space.ready_pod("web")?;
    let body = b"there and back";
    let request = Request { method: "POST", path: "/echo", headers: &[], body };
    assert_eq!(request.send((ip, PORT).into())?.text(), "there and back");
    space.delete()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn commands_run_to_their_end_with_their_output_and_exit_code() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("shim")?;
    let image = images::tool(&cluster)?;
    space.apply(&Pod::new("good", image).args(&["0"]).once().yaml())?;
    let output = space.output_of("good")?;
    assert!(output.contains("1 arguments") && output.contains("main 0"), "{output}");
    space.apply(&Pod::new("bad", image).args(&["1"]).once().yaml())?;
    assert_eq!(ended(&space, "bad")?["exitCode"], 1);
    let core = "docker.io/local/bare-module:1";
    package::import_bare(&cluster, &package::module("foreign-module")?, core)?;
    // The core module classifies a picture, and without one it says what it needs.
    space.apply(&Pod::new("core", core).once().yaml())?;
    ended(&space, "core")?;
    space.delete()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_partial_last_line_is_logged_and_followed_while_it_runs() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("shim")?;
    let image = images::tool(&cluster)?;
    space.apply(&Pod::new("partial", image).args(&["print", "no newline"]).once().yaml())?;
    wait("a first line", END_TIMEOUT, || {
        Ok(space.logs("partial").unwrap_or_default().contains("print no newline").then_some(()))
    })?;
    let seconds = "--since=1m";
    let followed = space.run(&[
        "logs",
        "--follow",
        seconds,
        "--pod-running-timeout=5s",
        "--limit-bytes=10",
        "partial",
    ])?;
    assert_eq!(followed.len(), 10, "{followed}");
    space.run(&["delete", "pod", "partial", "--grace-period=1", "--wait=false"])?;
    wait("the partial line", END_TIMEOUT, || {
        let logs = space.logs("partial").unwrap_or_default();
        // After the end of the pod its log is gone with it; both are an end of the wait.
        let gone = space.get("pod/partial")?.is_none();
        Ok((gone || logs.ends_with("no newline")).then_some(()))
    })?;
    space.delete()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_pod_past_its_memory_is_oom_killed_and_restarted() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("shim")?;
    let image = images::tool(&cluster)?;
    let pod = Pod::new("eater", image).args(&["eat"]).memory("96Mi");
    space.apply(&pod.yaml())?;
    let state = space.wait("pod/eater", "an OOM kill", END_TIMEOUT, |pod| {
        let status = &pod["status"]["containerStatuses"][0];
        let killed = status["lastState"]["terminated"]["reason"] == "OOMKilled";
        Ok((killed && status["restartCount"].as_u64() >= Some(1)).then(|| status.clone()))
    })?;
    assert_eq!(state["lastState"]["terminated"]["exitCode"], 137, "{state}");
    // While it is being started once more, the kubelet has the log of neither for a moment.
    wait("the log of the one before", END_TIMEOUT, || {
        let previous = space.run(&["logs", "--previous", "eater"]).unwrap_or_default();
        Ok(previous.contains("16 MiB").then_some(()))
    })?;
    space.delete()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_broken_package_says_why_in_the_termination_message() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("shim")?;
    let image = "docker.io/local/broken:1";
    let broken = Image::new(image).file("/wick.toml", "[package]\nname = \"Broken!\"\n");
    cluster.import(&broken.entrypoint(&["/wick.toml"]))?;
    space.apply(&Pod::new("broken", image).once().yaml())?;
    let state = ended(&space, "broken")?;
    let message = state["message"].as_str().context("no message")?;
    assert!(message.contains("wick.toml") && message.contains("version"), "{message}");
    assert_eq!(state["exitCode"], 65);
    space.delete()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_stop_drains_what_is_in_work() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("shim")?;
    let image = images::filetype(&cluster)?;
    space.apply(&Pod::new("model", image).probed().grace(20).yaml())?;
    let ip = space.ready_pod("model")?;
    // Many requests in work while the stop comes; each must be answered or refused as a
    // whole, and none cut off in the middle of its answer.
    let asking = std::thread::spawn(move || {
        let mut answered = 0;
        for _ in 0..5000 {
            match support::classify((ip, PORT).into(), "import os\n\nprint(os.name)\n") {
                Ok(label) => {
                    assert_eq!(label, "python");
                    answered += 1;
                }
                Err(error) => {
                    let text = format!("{error:#}");
                    // No connection any more, or told to go elsewhere.
                    let told = ["503", "refused", "No route", "reset", "timed out", "unreachable"];
                    assert!(told.iter().any(|word| text.contains(word)), "{text}");
                    return answered;
                }
            }
        }
        answered
    });
    std::thread::sleep(Duration::from_millis(500));
    let begun = std::time::Instant::now();
    space.run(&["delete", "pod", "model", "--wait=true"])?;
    assert!(begun.elapsed() < Duration::from_secs(15), "a stop waits for no grace period");
    let answered = asking.join().map_err(|_| anyhow::anyhow!("a request was cut off"))?;
    ensure!(answered > 0, "nothing was answered before the stop");
    space.delete()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn the_kubelet_sees_what_a_pod_uses() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("shim")?;
    let image = images::filetype(&cluster)?;
    space.apply(&Pod::new("model", image).probed().yaml())?;
    space.ready_pod("model")?;
    // What `kubectl top` is made of: the summary that metrics-server reads from each node.
    let found = wait("statistics", Duration::from_secs(90), || {
        let nodes = cluster.kubectl.run(&["get", "nodes", "-o", "name"])?;
        let node = nodes.trim().trim_start_matches("node/").to_owned();
        let path = format!("/api/v1/nodes/{node}/proxy/stats/summary");
        let summary: Value = serde_json::from_str(&cluster.kubectl.run(&["get", "--raw", &path])?)?;
        let pods = summary["pods"].as_array().cloned().unwrap_or_default();
        let ours = pods.into_iter().find(|pod| pod["podRef"]["namespace"] == space.name.as_str());
        let container = ours.map(|pod| pod["containers"][0].clone()).unwrap_or_default();
        let memory = container["memory"]["workingSetBytes"].as_u64().unwrap_or_default();
        let cpu = container["cpu"]["usageCoreNanoSeconds"].as_u64().unwrap_or_default();
        Ok((memory > 1 << 20 && cpu > 1_000_000).then_some((memory, cpu)))
    })?;
    ensure!(found.0 < 512 << 20, "{found:?}");
    space.delete()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn exec_is_refused_with_words_that_help() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("shim")?;
    space.apply(&Pod::new("model", images::filetype(&cluster)?).probed().yaml())?;
    space.ready_pod("model")?;
    let error = space.run(&["exec", "model", "--", "sh"]).err().context("exec worked")?;
    let text = format!("{error:#}");
    assert!(text.contains("wick") && text.contains("logs"), "{text}");
    // The pod goes on.
    space.ready_pod("model")?;
    space.delete()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn exec_probes_and_hooks_are_refused_before_they_can_fail() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("shim")?;
    let policy = include_str!("../../deploy/shim/admission.yaml");
    cluster.kubectl.apply("default", policy)?;
    let image = images::filetype(&cluster)?;
    let exec = json!({"exec": {"command": ["true"]}});
    let probe = Pod::new("probe", image).container("livenessProbe", exec.clone());
    let hook = Pod::new("hook", image).container("lifecycle", json!({"preStop": exec}));
    // A new policy is in force a moment after it is stored.
    wait("the policy to be in force", Duration::from_secs(30), || {
        let refused = space.apply(&probe.yaml()).err();
        if refused.is_none() {
            space.run(&["delete", "pod", "probe", "--grace-period=1"])?;
        }
        Ok(refused.filter(|e| format!("{e:#}").contains("/v2/health/ready")).map(drop))
    })?;
    let refused = space.apply(&hook.yaml()).err().context("the hook was let in")?;
    assert!(format!("{refused:#}").contains("SIGTERM"), "{refused:#}");
    let side_car = probe.annotation("wick.dev/ordinary", "main");
    space.apply(&side_car.yaml())?;
    space.delete()
}
