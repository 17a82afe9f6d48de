//! What happens to requests when something of a Model's way ends: the operator, activators, workers,
//! the API server, the Model itself. Each test prints how many requests were lost.

mod support;

use std::fs;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::json;
use support::machine::{self, Node};
use wick_e2e::caller::Caller;
use wick_e2e::chart::NAMESPACE;
use wick_e2e::filetype::{PYTHON, ask, classify};
use wick_e2e::http::{Answer, connects};
use wick_e2e::package;
use wick_e2e::say;
use wick_e2e::stage::{SETTLED, Stage};
use wick_e2e::wait::wait;

/// Between two requests of a client that calls now and then.
const TRICKLE: Duration = Duration::from_millis(100);

/// Requests that wait for a Model that can't start.
const HELD: usize = 20;

/// Within this time a request that can't be answered any more must have ended.
const AT_ONCE: Duration = Duration::from_secs(3);

/// How long the API server is away.
const AWAY: Duration = Duration::from_secs(60);

/// Clients that wait for an answer, each on a thread of its own.
struct Waiting(Vec<thread::JoinHandle<(Instant, anyhow::Result<Answer>)>>);

// === impl Waiting ===

impl Waiting {
    fn start(addr: SocketAddr, clients: usize) -> Self {
        let one = move || {
            let answer = ask(addr, PYTHON);
            (Instant::now(), answer)
        };
        Self((0..clients).map(|_| thread::spawn(one)).collect())
    }

    /// Clients of a Model that can't start, each of which is held.
    fn held(stage: &Stage, addr: SocketAddr) -> anyhow::Result<Self> {
        // Services are told of new activators one after the other.
        wait("the way to the activators", SETTLED, || {
            Ok((0..HELD).all(|_| connects(addr)).then_some(()))
        })?;
        let waiting = Self::start(addr, HELD);
        wait("held requests", SETTLED, || Ok((held(stage)? == HELD as u64).then_some(())))?;
        Ok(waiting)
    }

    /// What each got, and how long after `since`.
    fn answers(self, since: Instant) -> anyhow::Result<Vec<(Duration, anyhow::Result<Answer>)>> {
        let joined = self.0.into_iter().map(|one| {
            let (at, answer) = one.join().map_err(|_| anyhow::anyhow!("a client has panicked"))?;
            Ok((at.saturating_duration_since(since), answer))
        });
        joined.collect()
    }
}

/// A Model that no node takes, since none has its device: whoever calls it waits, and the Model says why.
fn unplaced(stage: &Stage) -> anyhow::Result<SocketAddr> {
    let nowhere = json!({"resources": {"limits": {"wick.test/none": 1}}});
    stage.apply(&stage.image("9.5.0")?, &nowhere)?;
    stage.until("Ready", "Starting")?;
    let model = stage.until("Degraded", "Unschedulable")?;
    let conditions = model["status"]["conditions"].as_array().into_iter().flatten();
    let mut messages = conditions.filter_map(|one| one["message"].as_str());
    ensure!(messages.any(|text| text.contains("Insufficient wick.test/none")), "{model}");
    stage.address()
}

/// How many requests the activators hold.
fn held(stage: &Stage) -> anyhow::Result<u64> {
    let mut held = 0;
    for text in stage.activator_metrics()? {
        let lines = text.lines().filter(|line| line.starts_with("wick_activator_held{"));
        let ours = lines.filter(|line| line.contains(&stage.space.name));
        held += ours.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>();
    }
    Ok(held)
}

/// The only worker of a Model's only pod.
fn worker(stage: &Stage, node: &Node<'_>, model: &str) -> anyhow::Result<u32> {
    let pod = stage.pods_of(model)?.pop().context("the Model has no pod")?;
    let running = node.running(&stage.space, &pod)?;
    running.workers.last().copied().context("the pod has no worker")
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn who_waits_at_an_activator_that_ends_is_told_at_once() -> anyhow::Result<()> {
    let stage = Stage::new("held")?;
    let addr = unplaced(&stage)?;
    let waiting = Waiting::held(&stage, addr)?;
    let ended = Instant::now();
    stage.release_pods("activator", false)?;
    let mut told = 0;
    for (after, answer) in waiting.answers(ended)? {
        let answer = answer?;
        ensure!(answer.status == 503, "status {}: {}", answer.status, answer.text());
        ensure!(answer.header("retry-after").is_some(), "no Retry-After");
        ensure!(after < AT_ONCE, "after {after:?}");
        told += 1;
    }
    say(&format!("activators ended with {HELD} requests held: {told} were told 503"));

    // Killed, it can say nothing: its clients' connections end, and nothing hangs.
    let node = Node::new(&stage.cluster)?;
    let waiting = Waiting::held(&stage, addr)?;
    let ended = Instant::now();
    for pod in stage.pods_of_release("activator")? {
        let uid = pod["metadata"]["uid"].as_str().context("no uid")?;
        for pid in node.processes_of(uid) {
            machine::kill(pid)?;
        }
    }
    let answers = waiting.answers(ended)?;
    let most = answers.iter().map(|(after, _)| *after).max().unwrap_or_default();
    ensure!(answers.iter().all(|(_, answer)| answer.is_err()), "a dead activator answered");
    ensure!(most < AT_ONCE, "the last connection ended after {most:?}");
    say(&format!("activators killed with {HELD} held: all ended within {most:.1?}"));
    stage.release.wait_until_available()?;
    stage.end()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn an_operator_may_die_at_any_time() -> anyhow::Result<()> {
    let stage = Stage::new("killed")?;
    let steps = json!({"rollout": {
        "steps": [{"weight": 50, "hold": "8s"}],
        "gates": {"minRequests": 10, "window": "10s", "maxLatencyIncrease": "400%"},
    }});
    let node = Node::new(&stage.cluster)?;
    let kill = |when: &str| {
        let pod = stage.pods_of_release("operator")?.pop().context("no operator")?;
        let pod = &pod["metadata"];
        let uid = pod["uid"].as_str().context("no operator")?;
        node.processes_of(uid).into_iter().try_for_each(machine::kill)?;
        // Its node is gone, too: the kubelet would wait longer and longer before it starts it again.
        let name = pod["name"].as_str().context("no name")?;
        let words =
            ["--namespace", NAMESPACE, "delete", "pod", name, "--grace-period=0", "--force"];
        stage.cluster.kubectl.run(&words)?;
        say(&format!("operator killed {when}"));
        anyhow::Ok(())
    };
    stage.apply(&stage.image("9.6.0")?, &steps)?;
    kill("when the Model was made")?;
    stage.until("Ready", "Serving")?;
    let addr = stage.address()?;
    stage.until_gone()?;
    // With a request held.
    let waiting = Waiting::start(addr, HELD);
    kill("with requests held")?;
    for (_, answer) in waiting.answers(Instant::now())? {
        let answer = answer?;
        ensure!(answer.status == 200, "status {}: {}", answer.status, answer.text());
    }
    let callers = Caller::start(addr, 4, |_| TRICKLE);
    stage.until("Ready", "Serving")?;
    stage.apply(&stage.image("9.6.1")?, &steps)?;
    kill("when a version was made")?;
    stage.until("Progressing", "RollingOut")?;
    kill("in the middle of a rollout")?;
    stage.until("Progressing", "Complete")?;
    kill("at its end")?;
    thread::sleep(TRICKLE * 50);
    callers.stop_without_loss("an operator that was killed five times")?;
    stage.release.wait_until_available()?;
    stage.until_gone()?;
    stage.end()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_worker_that_is_killed_comes_back() -> anyhow::Result<()> {
    let stage = Stage::new("worker")?;
    let node = Node::new(&stage.cluster)?;
    stage.apply(&stage.image("9.7.0")?, &json!({}))?;
    stage.until("Ready", "Serving")?;
    let addr = stage.address()?;
    let callers = Caller::start(addr, 4, |_| TRICKLE);
    thread::sleep(TRICKLE * 20);
    machine::kill(worker(&stage, &node, "filetype")?)?;
    thread::sleep(TRICKLE * 100);
    let tally = callers.stop()?;
    say(&format!(
        "a worker killed by SIGKILL under 4 clients: {} answered, {} lost, the slowest in {:.1?}",
        tally.answered,
        tally.lost.len(),
        tally.slowest
    ));
    for lost in &tally.lost {
        say(&format!("  {lost}"));
    }
    ensure!(tally.answered > 100, "{tally:?}");
    // What it had begun is lost, and what came before anybody knew that it had died.
    ensure!(tally.lost.len() <= 4 * 10, "{tally:?}");
    ensure!(classify(addr, PYTHON)? == "python");
    stage.end()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_guest_that_loops_or_eats_memory_harms_only_its_own_requests() -> anyhow::Result<()> {
    let stage = Stage::new("guest")?;
    let folder = tempfile::tempdir()?;
    let tensor = |kind: &str, name: &str| {
        format!("[[{kind}]]\nname = \"{name}\"\ndatatype = \"FP32\"\nshape = [-1]\n\n")
    };
    let manifest = format!(
        "[package]\nname = \"hostile\"\nversion = \"1.0.0\"\n\n\
         [handler]\ncomponent = \"handler.wasm\"\n\n{}{}\
         [limits]\nmemory = \"1GiB\"\ntimeout = \"2s\"\n",
        tensor("input", "x"),
        tensor("output", "y"),
    );
    fs::write(folder.path().join("wick.toml"), manifest)?;
    fs::copy(package::guest("hostile")?, folder.path().join("handler.wasm"))?;
    let image = stage.import(folder.path(), "docker.io/models/hostile:1")?;
    let resources = json!({"resources": {"limits": {"memory": "192Mi"}}});
    stage.apply_as("hostile", &image, &resources)?;
    let addr = stage.address_of("hostile")?;
    let ask = |mode: &str| support::hostile(addr, mode, "");
    ensure!(ask("good")?.status == 200);

    let asked = Instant::now();
    let looping = ask("loop")?;
    say(&format!("a guest's loop: {} after {:.1?}", looping.status, asked.elapsed()));
    assert_eq!(looping.status, 504, "{}", looping.text());
    ensure!(ask("good")?.status == 200);

    // The kernel ends the worker, and with it this request.
    let eater = ask("allocate");
    ensure!(eater.as_ref().map_or(true, |answer| answer.status >= 500), "{eater:?}");
    let killed = Instant::now();
    wait("the worker's return", SETTLED, || match ask("good") {
        // Kubernetes may not have seen yet that it ended: until its model is loaded it says so.
        Ok(answer) if answer.status == 503 => {
            ensure!(answer.header("retry-after").is_some(), "no Retry-After: {}", answer.text());
            Ok(None)
        }
        Ok(answer) => {
            ensure!(answer.status == 200, "{}", answer.text());
            Ok(Some(()))
        }
        Err(_) => Ok(None),
    })?;
    say(&format!("a worker ended for its memory: answers again after {:.1?}", killed.elapsed()));
    let pod = stage.pods_of("hostile")?.pop().context("no pod")?;
    stage.space.wait(&format!("pod/{pod}"), "an OOM kill", SETTLED, |pod| {
        let last = &pod["status"]["containerStatuses"][0]["lastState"];
        Ok((last["terminated"]["reason"] == "OOMKilled").then_some(()))
    })?;
    stage.end()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn an_api_server_may_be_away_for_a_minute() -> anyhow::Result<()> {
    let stage = Stage::new("away")?;
    let image = stage.image("9.8.0")?;
    let warm = json!({"scale": {"minReplicas": 1}});
    stage.apply_as("warm", &image, &warm)?;
    let hold = json!({"scale": {
        "idleTimeout": "2s", "scaleDownDelay": "1s", "stableWindow": "6s", "panicWindow": "1s",
        "hold": {"timeout": "5s"},
    }});
    stage.apply_as("cold", &image, &hold)?;
    let (warm, cold) = (stage.address_of("warm")?, stage.address_of("cold")?);
    stage.until_of("warm", "Ready", "Serving")?;
    stage.until_gone_of("cold")?;

    let node = Node::new(&stage.cluster)?;
    let server = node.daemon("kube-apiserver")?;
    let callers = Caller::start(warm, 4, |_| TRICKLE);
    machine::signal(server, "STOP")?;
    let gone = Instant::now();
    let answer = ask(cold, PYTHON);
    let after = gone.elapsed();
    thread::sleep(AWAY.saturating_sub(gone.elapsed()));
    machine::signal(server, "CONT")?;
    let tally = callers.stop()?;
    say(&format!(
        "an API server away for a minute: warm: {} answered, {} lost; cold: {} after {after:.1?}",
        tally.answered,
        tally.lost.len(),
        answer.as_ref().map_or_else(ToString::to_string, |answer| answer.status.to_string()),
    ));
    ensure!(tally.lost.is_empty(), "{:?}", tally.lost);
    let answer = answer?;
    assert_eq!(answer.status, 503, "{}", answer.text());
    ensure!(answer.header("retry-after").is_some(), "no Retry-After");
    wait("the cold Model's return", SETTLED, || {
        Ok(classify(cold, PYTHON).ok().filter(|label| label == "python"))
    })?;
    stage.end()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_model_may_be_deleted_while_it_starts() -> anyhow::Result<()> {
    let stage = Stage::new("deleted")?;
    // Held as long as it exists, and told when it does not any more.
    let addr = unplaced(&stage)?;
    let waiting = Waiting::held(&stage, addr)?;
    let deleted = Instant::now();
    stage.space.run(&["delete", "model/filetype", "--wait=false"])?;
    for (after, answer) in waiting.answers(deleted)? {
        let answer = answer?;
        ensure!(answer.status == 503, "status {}: {}", answer.status, answer.text());
        ensure!(after < AT_ONCE, "after {after:?}");
    }
    say(&format!("a Model deleted with {HELD} requests held: all were told 503"));
    stage.until_nothing_is_left()?;
    stage.end()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn an_autoscaler_of_kubernetes_decides_from_one_pod_on() -> anyhow::Result<()> {
    let stage = Stage::new("hpa")?;
    let spec = json!({
        "resources": {"requests": {"cpu": "10m"}},
        "scale": {
            "idleTimeout": "10s", "scaleDownDelay": "5s", "stableWindow": "10s", "maxReplicas": 3,
            "horizontalPodAutoscaler": {"targetCpuUtilization": 70},
        },
    });
    stage.apply(&stage.image("9.9.0")?, &spec)?;
    let addr = stage.address()?;
    let callers = Caller::start(addr, 1, |_| TRICKLE);
    stage.until("Ready", "Serving")?;
    let made = |kind: &str| {
        let list = stage.space.get(kind)?.unwrap_or_default();
        anyhow::Ok(list["items"][0].clone())
    };
    let scaler = made("horizontalpodautoscalers")?;
    assert_eq!(scaler["spec"]["maxReplicas"], 3);
    let target = scaler["spec"]["scaleTargetRef"]["name"].as_str().context("no target")?;
    // As it does: by the scale of what it aims at. There are no metrics here to make it do so.
    stage.space.run(&["scale", &format!("deployment/{target}"), "--replicas=2"])?;
    stage.space.wait(&format!("deployment/{target}"), "two pods", SETTLED, |deployment| {
        Ok((deployment["status"]["readyReplicas"] == 2).then_some(()))
    })?;
    thread::sleep(TRICKLE * 50);
    let deployment = made("deployments")?;
    assert_eq!(deployment["spec"]["replicas"], 2, "the operator has put it back");
    callers.stop_without_loss("an autoscaler that adds a pod")?;
    // The last step is the operator's.
    stage.until_gone()?;
    ensure!(classify(addr, PYTHON)? == "python");
    stage.end()
}
