//! What is killed, filled up, taken away or in the way: a pod goes on, or ends with a reason
//! and is started again, and nothing of it is left on the node.

mod support;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use support::machine::{self, Node, Running};
use support::{END_TIMEOUT, PORT, Pod, images};
use wick_e2e::cluster::Cluster;
use wick_e2e::http::{self, Request};
use wick_e2e::kubectl::Namespace;
use wick_e2e::wait::wait;

/// A pod that is deleted stays visible, with its state, until this is taken off.
const FINALIZER: &str = "wick.dev/e2e";

/// How often containerd dies while pods start, and how many start.
const DEATHS: u32 = 3;
const STARTING: usize = 10;

/// Ask a pod until it answers; what it says must be what was said.
fn echo(ip: IpAddr) -> anyhow::Result<()> {
    let addr = SocketAddr::from((ip, PORT));
    let request = Request { method: "POST", path: "/echo", headers: &[], body: b"there and back" };
    let answer = wait("an answer", Duration::from_secs(10), || Ok(request.send(addr).ok()))?;
    ensure!(answer.text() == "there and back", "{}", answer.text());
    Ok(())
}

/// A pod of the bare web component, once it answers.
fn web(cluster: &Cluster, space: &Namespace, name: &str) -> anyhow::Result<IpAddr> {
    space.apply(&Pod::new(name, images::web(cluster)?).probed().yaml())?;
    let ip = space.ready_pod(name)?;
    echo(ip)?;
    Ok(ip)
}

fn restarts(pod: &Value) -> u64 {
    pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or(0)
}

/// Wait until a pod was started again and is ready; what it was before.
fn started_again(space: &Namespace, pod: &str, before: u64) -> anyhow::Result<(IpAddr, Value)> {
    let last = space.wait(&format!("pod/{pod}"), "started again", END_TIMEOUT, |pod| {
        let status = &pod["status"]["containerStatuses"][0];
        let again = restarts(pod) > before && status["ready"] == true;
        Ok(again.then(|| status["lastState"]["terminated"].clone()))
    })?;
    Ok((space.ready_pod(pod)?, last))
}

/// Wait for an event that says all of these words, and return it.
fn event(space: &Namespace, words: &[&str]) -> anyhow::Result<String> {
    let path = "jsonpath={range .items[*]}{.reason}: {.message}{\"\\n\"}{end}";
    let found = wait("the event", END_TIMEOUT, || {
        let events = space.run(&["get", "events", "-o", path])?;
        let found = events.lines().find(|line| words.iter().all(|word| line.contains(word)));
        Ok(found.map(str::to_owned))
    });
    found.with_context(|| format!("no event with {words:?}\n{}", space.dump()))
}

/// A pod whose next container is being created: it stands still in front of its lockdown, and
/// containerd waits for it. The old container was killed to come here.
fn creating(node: &Node<'_>, space: &Namespace, pod: &str) -> anyhow::Result<(Running, u32)> {
    let old = node.running(space, pod)?;
    let victim = *old.workers.first().context("no worker")?;
    machine::kill(victim)?;
    // Until the shim has seen its end: a thread of it that is frozen would not end.
    let gone = || !std::path::Path::new(&format!("/proc/{victim}")).exists();
    wait("the end of the worker", END_TIMEOUT, || Ok(gone().then_some(())))?;
    node.freeze(&old.uid, true)?;
    let new = wait("the next worker", END_TIMEOUT, || {
        let all = node.processes_of(&old.uid).into_iter();
        Ok(all.filter(|pid| *pid != old.pause && *pid != victim).find(|pid| machine::alive(*pid)))
    });
    if new.is_err() {
        node.freeze(&old.uid, false)?;
    }
    Ok((old, new?))
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_killed_shim_takes_its_pod_along_and_the_kubelet_starts_another() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let node = Node::new(&cluster)?;
    let space = cluster.kubectl.namespace("faults")?;
    web(&cluster, &space, "web")?;
    let old = node.running(&space, "web")?;
    machine::kill(old.shim)?;
    // The kernel sees to it, before anybody has noticed.
    wait("the end of all its processes", Duration::from_secs(2), || {
        let mut all = old.workers.iter().chain([&old.shim, &old.pause]);
        Ok((!all.any(|pid| machine::alive(*pid))).then_some(()))
    })?;
    let (ip, _) = started_again(&space, "web", 0)?;
    echo(ip)?;
    let new = node.running(&space, "web")?;
    ensure!(new.shim != old.shim, "the shim lives");
    // containerd hears of it from the socket that closed. It asks the shim to clear up behind the
    // sandbox alone, and may have removed the containers' bundles before.
    node.wait_gone(&old.ids)?;
    space.delete()?;
    node.wait_gone(&[new.uid])
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_side_car_of_a_killed_shim_ends_with_its_pod() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let node = Node::new(&cluster)?;
    let space = cluster.kubectl.namespace("faults")?;
    let side_car = support::container("beside", images::httpd(&cluster)?, &["serve", ":9090"]);
    let pod = Pod::new("web", images::web(&cluster)?).probed().beside("containers", side_car);
    space.apply(&pod.yaml())?;
    echo(space.ready_pod("web")?)?;
    let old = wait("both containers", END_TIMEOUT, || {
        Ok(Some(node.running(&space, "web")?).filter(|old| old.ids.len() == 3))
    })?;
    machine::kill(old.shim)?;
    // runc's process is nobody's child now: only the cleanup ends it.
    node.wait_gone(&old.ids)?;
    echo(started_again(&space, "web", 0)?.0)?;
    space.delete()?;
    node.wait_gone(&[old.uid])
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_killed_worker_is_started_again_in_the_same_pod() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let node = Node::new(&cluster)?;
    let space = cluster.kubectl.namespace("faults")?;
    let first = web(&cluster, &space, "web")?;
    let old = node.running(&space, "web")?;
    machine::kill(old.workers[0])?;
    let (ip, last) = started_again(&space, "web", 0)?;
    echo(ip)?;
    assert_eq!(ip, first);
    assert_eq!(last["exitCode"], 137, "{last}");
    let new = node.running(&space, "web")?;
    assert_eq!((new.shim, new.pause), (old.shim, old.pause));
    let ids = wait("one container instead of the other", END_TIMEOUT, || {
        let ids = node.running(&space, "web")?.ids;
        Ok((ids.len() == old.ids.len()).then_some(ids))
    })?;
    let ended: Vec<String> = old.ids.iter().filter(|id| !ids.contains(id)).cloned().collect();
    assert_eq!(ended.len(), 1, "{old:?} {new:?}");
    node.wait_gone(&ended)?;
    space.delete()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_worker_that_is_killed_while_create_waits_fails_it_with_a_reason() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let node = Node::new(&cluster)?;
    let space = cluster.kubectl.namespace("faults")?;
    web(&cluster, &space, "web")?;
    let (old, waiting) = creating(&node, &space, "web")?;
    machine::kill(waiting)?;
    node.freeze(&old.uid, false)?;
    event(&space, &["waited for the worker to be ready"])?;
    // The next one comes up.
    echo(space.ready_pod("web")?)?;
    space.delete()?;
    node.wait_gone(&[old.uid])
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_shim_that_is_killed_while_create_waits_leaves_nothing() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let node = Node::new(&cluster)?;
    let space = cluster.kubectl.namespace("faults")?;
    web(&cluster, &space, "web")?;
    let (old, waiting) = creating(&node, &space, "web")?;
    machine::kill(old.shim)?;
    node.freeze(&old.uid, false)?;
    wait("the end of the worker", END_TIMEOUT, || Ok((!machine::alive(waiting)).then_some(())))?;
    let again = wait("another pod", END_TIMEOUT, || {
        let new = node.running(&space, "web").ok();
        Ok(new.filter(|new| new.shim != old.shim))
    })?;
    echo(space.ready_pod("web")?)?;
    ensure!(again.pause != old.pause, "the pause process lives");
    space.delete()?;
    node.wait_gone(&[old.uid])
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn containerd_that_dies_while_create_waits_finds_the_pod_again() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let node = Node::new(&cluster)?;
    let space = cluster.kubectl.namespace("faults")?;
    web(&cluster, &space, "web")?;
    let (old, _) = creating(&node, &space, "web")?;
    node.kill_containerd()?;
    node.freeze(&old.uid, false)?;
    node.start_containerd()?;
    let ip = wait("the pod", END_TIMEOUT, || Ok(space.ready_pod("web").ok()))?;
    echo(ip)?;
    let new = node.running(&space, "web")?;
    assert_eq!((new.shim, new.workers.len()), (old.shim, 1), "{new:?}");
    space.delete()?;
    node.wait_gone(&[old.uid])
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn pods_answer_and_log_while_containerd_is_dead_and_after() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let node = Node::new(&cluster)?;
    let space = cluster.kubectl.namespace("faults")?;
    space.apply(&Pod::new("clock", images::tool(&cluster)?).args(&["tick"]).yaml())?;
    let ip = web(&cluster, &space, "web")?;
    let ticks = || -> anyhow::Result<Vec<u64>> {
        let logs = space.logs("clock").unwrap_or_default();
        Ok(logs.lines().filter_map(|line| line.strip_prefix("tick ")?.parse().ok()).collect())
    };
    wait("ticks", END_TIMEOUT, || Ok((ticks()?.len() > 10).then_some(())))?;
    let old = node.running(&space, "web")?;
    node.kill_containerd()?;
    // Dead for a while: what is printed now waits in the pipe.
    for _ in 0..10 {
        echo(ip)?;
        std::thread::sleep(Duration::from_millis(100));
    }
    node.start_containerd()?;
    let before = wait("ticks", END_TIMEOUT, || Ok(ticks()?.last().copied()))?;
    wait("more ticks", END_TIMEOUT, || Ok((ticks()?.last() > Some(&(before + 60))).then_some(())))?;
    echo(ip)?;
    let all = ticks()?;
    // What containerd had read and not written when it died is lost: a line or so.
    let lost: u64 = all.windows(2).map(|pair| pair[1].saturating_sub(pair[0] + 1)).sum();
    ensure!(lost <= 2 && all.is_sorted(), "{lost} lines are lost: {all:?}");
    let new = node.running(&space, "web")?;
    assert_eq!((new.shim, new.workers), (old.shim, old.workers.clone()));
    // It has found its shim again: an exit is heard and answered.
    machine::kill(old.workers[0])?;
    let (_, last) = started_again(&space, "web", 0)?;
    assert_eq!(last["exitCode"], 137, "{last}");
    space.delete()?;
    node.wait_gone(&[old.uid])
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn containerd_that_dies_again_and_again_while_pods_start_leaves_nothing() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let node = Node::new(&cluster)?;
    let space = cluster.kubectl.namespace("faults")?;
    let image = images::web(&cluster)?;
    let names: Vec<String> = (0..STARTING).map(|at| format!("web-{at}")).collect();
    let pods: Vec<String> =
        names.iter().map(|name| Pod::new(name, image).probed().yaml()).collect();
    space.apply(&format!(
        "{{\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":[{}]}}",
        pods.join(",")
    ))?;
    let uids: Vec<String> =
        names.iter().map(|name| node.uid(&space, name)).collect::<anyhow::Result<_>>()?;
    for _ in 0..DEATHS {
        std::thread::sleep(Duration::from_millis(700));
        node.kill_containerd()?;
        node.start_containerd()?;
    }
    for name in &names {
        let ip = wait(name, END_TIMEOUT, || Ok(space.ready_pod(name).ok()))?;
        echo(ip)?;
    }
    let ids: Vec<String> = names
        .iter()
        .map(|name| Ok(node.running(&space, name)?.ids))
        .collect::<anyhow::Result<Vec<_>>>()?
        .concat();
    space.delete()?;
    node.wait_gone(&[uids, ids].concat())
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_command_that_loops_ends_at_sigterm_and_one_that_stands_still_after_its_grace_period()
-> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let node = Node::new(&cluster)?;
    let space = cluster.kubectl.namespace("faults")?;
    let image = images::tool(&cluster)?;
    // One obeys, however busy its guest is; the other is stopped, and so deaf.
    for (name, grace, code) in [("busy", 20_u32, 143), ("deaf", 2, 137)] {
        let pod = Pod::new(name, image).args(&["loop"]).once().grace(grace);
        space.apply(&pod.metadata("finalizers", json!([FINALIZER])).yaml())?;
        let running = node.running(&space, name)?;
        space.wait(&format!("pod/{name}"), "running", END_TIMEOUT, |pod| {
            let state = &pod["status"]["containerStatuses"][0]["state"]["running"];
            Ok((!state.is_null()).then_some(()))
        })?;
        if name == "deaf" {
            machine::signal(running.workers[0], "STOP")?;
        }
        let begun = Instant::now();
        space.run(&["delete", "pod", name, "--wait=false"])?;
        let state = support::ended(&space, name)?;
        let took = begun.elapsed();
        assert_eq!(state["exitCode"], code, "{name}: {state}");
        ensure!(took < Duration::from_secs(12), "{name}: {took:?}");
        ensure!(name == "busy" || took >= Duration::from_secs(2), "{name}: {took:?}");
        let patch = "{\"metadata\":{\"finalizers\":null}}";
        space.run(&["patch", "pod", name, "--type=merge", "-p", patch])?;
        node.wait_gone(&[running.uid])?;
    }
    space.delete()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_full_volume_is_an_error_that_the_guest_sees() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("faults")?;
    let small = json!({"emptyDir": {"medium": "Memory", "sizeLimit": "4Ki"}});
    let text = "x".repeat(16 << 10);
    let pod = Pod::new("writer", images::tool(&cluster)?).volume("data", "/data", false, small);
    space.apply(&pod.args(&["write", "/data/file", &text]).once().yaml())?;
    let printed = support::output(&space, "writer")?;
    // The interface of streams knows no reason but this.
    assert!(printed.contains("refused: I/O error"), "{}", &printed[printed.len() - 100..]);
    Ok(())
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_root_file_system_that_vanishes_is_no_obstacle_to_a_delete() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let node = Node::new(&cluster)?;
    let space = cluster.kubectl.namespace("faults")?;
    let ip = web(&cluster, &space, "web")?;
    let running = node.running(&space, "web")?;
    let mut taken = 0;
    for id in &running.ids {
        let root = node.bundle(id)?.join("rootfs").display().to_string();
        taken += usize::from(node.inside(&["umount", "-l", &root]).is_ok());
    }
    ensure!(taken == running.ids.len(), "{taken} root file systems were there");
    // The worker has its own view of it.
    echo(ip)?;
    space.delete()?;
    node.wait_gone(&[vec![running.uid], running.ids].concat())
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_control_group_that_can_not_be_made_is_said_in_an_event() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let node = Node::new(&cluster)?;
    let space = cluster.kubectl.namespace("faults")?;
    web(&cluster, &space, "web")?;
    let running = node.running(&space, "web")?;
    // Something else lies where the next container's group would be made, in one hierarchy.
    let group = node.group(&running.uid).context("no group")?.display().to_string();
    let group = group.replace("/freezer/", "/devices/");
    node.inside(&["mount", "-t", "tmpfs", "-o", "nr_inodes=1", "tmpfs", &group])?;
    machine::kill(running.workers[0])?;
    let said = event(&space, &["control group", "/devices/"]);
    node.inside(&["umount", &group])?;
    let said = said?;
    assert!(said.contains("make") && said.contains("No space left"), "{said}");
    let (ip, _) = started_again(&space, "web", 0)?;
    echo(ip)?;
    space.delete()?;
    node.wait_gone(&[running.uid])
}

/// The most requests in work and waiting of the packages below.
const LIMITS: &str = "[limits]\nconcurrency = 2\nqueue = 4\ntimeout = \"2s\"\nmemory = \"64MiB\"\n";

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_guest_that_loops_or_eats_fails_its_own_request_only() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("faults")?;
    let image = images::hostile(&cluster, LIMITS)?;
    space.apply(&Pod::new("bad", image).probed().memory("256Mi").yaml())?;
    let addr = SocketAddr::from((space.ready_pod("bad")?, PORT));
    let table = [("good", 200), ("loop", 504), ("good", 200), ("allocate", 500), ("good", 200)];
    for (mode, status) in table {
        let begun = Instant::now();
        let answer = support::hostile(addr, mode, "")?;
        assert_eq!(answer.status, status, "{mode}: {}", answer.text());
        ensure!(begun.elapsed() < Duration::from_secs(6), "{mode}: {:?}", begun.elapsed());
    }
    let pod = space.get("pod/bad")?.context("no pod")?;
    assert_eq!(restarts(&pod), 0);
    Ok(())
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn more_requests_than_a_pod_takes_are_refused_and_it_lives() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let space = cluster.kubectl.namespace("faults")?;
    let image = images::guest(&cluster, "web", "docker.io/local/small-web:1", LIMITS)?;
    space.apply(&Pod::new("web", image).probed().memory("128Mi").yaml())?;
    let ip = space.ready_pod("web")?;
    let addr = SocketAddr::from((ip, PORT));
    // Each would be an instance that never ends.
    let asking: Vec<_> = (0..60)
        .map(|_| std::thread::spawn(move || http::get(addr, "/slow").map(|answer| answer.status)))
        .collect();
    let mut refused = 0;
    for asked in asking {
        let status = asked.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?;
        refused += usize::from(matches!(status, Ok(429 | 503)));
    }
    // Two work. Four wait, and are told after two seconds that there is no time left.
    ensure!((30..=58).contains(&refused), "{refused} of 60 were refused");
    echo(ip)?;
    let pod = space.get("pod/web")?.context("no pod")?;
    assert_eq!(restarts(&pod), 0);
    Ok(())
}
