//! Many pods at once, and many one after another: all come up, and none leaves anything.

mod support;

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use support::machine::{self, Node};
use support::{PORT, Pod, images};
use wick_e2e::cluster::Cluster;
use wick_e2e::http;
use wick_e2e::wait::wait;

/// Pods at once, and how long they may take: about what the kubelet and the network plugins
/// take for as many pods of any kind.
const PODS: usize = 100;
const PODS_TIMEOUT: Duration = Duration::from_secs(150);

/// Containers after another, and those before them that fill caches and start threads.
const CYCLES: usize = 200;
const FIRST: usize = 10;

/// Open files and groups that come and go by themselves, whatever the number of containers.
const SLACK: usize = 8;

/// The machine's memory in use, in MiB.
fn memory_in_use() -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let kib = |name| machine::field(&text, name).trim_end_matches(" kB").parse::<u64>();
    Ok((kib("MemTotal")? - kib("MemAvailable")?) >> 10)
}

/// Wait until nothing is more than it was.
fn settled(node: &Node<'_>, before: &machine::Counts) -> anyhow::Result<()> {
    let mut now = None;
    let done = wait("what was there before", Duration::from_secs(30), || {
        let counts = node.counts()?;
        let done = counts.processes <= before.processes + SLACK
            && counts.mounts <= before.mounts
            && counts.groups <= before.groups
            && counts.bundles <= before.bundles
            && counts.descriptors <= before.descriptors + SLACK;
        now = Some(counts);
        Ok(done.then_some(()))
    });
    done.with_context(|| format!("{before:?} before, {now:?} after"))
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_hundred_pods_answer_at_once_and_leave_nothing() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let node = Node::new(&cluster)?;
    let space = cluster.kubectl.namespace("crowd")?;
    let image = images::web(&cluster)?;
    let before = node.counts()?;
    let memory = memory_in_use()?;
    let pods: Vec<String> =
        (0..PODS).map(|at| Pod::new(&format!("web-{at}"), image).probed().yaml()).collect();
    let begun = Instant::now();
    space.apply(&format!(
        "{{\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":[{}]}}",
        pods.join(",")
    ))?;
    let mut ready = 0;
    let all = wait("a hundred ready pods", PODS_TIMEOUT, || {
        let list: Value = serde_json::from_str(&space.run(&["get", "pods", "-o", "json"])?)?;
        let addresses: Vec<SocketAddr> = list["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|pod| pod["status"]["containerStatuses"][0]["ready"] == true)
            .filter_map(|pod| {
                let ip: IpAddr = pod["status"]["podIP"].as_str()?.parse().ok()?;
                Some((ip, PORT).into())
            })
            .collect();
        ready = addresses.len();
        // A look costs the API server as much as a pod does.
        std::thread::sleep(Duration::from_secs(1));
        Ok((ready == PODS).then_some(addresses))
    });
    let all = all.with_context(|| format!("{ready} are ready"))?;
    let took = begun.elapsed();
    for address in &all {
        let answer = http::get(*address, "/count")?;
        ensure!(answer.status == 200, "{address}: {}", answer.status);
    }
    let used = memory_in_use()?.saturating_sub(memory);
    support::say(&format!("{PODS} pods were ready after {took:.1?} and take {used} MiB"));
    // The kubelet and containerd grow with the pods too, and a debug build is larger.
    ensure!(used < 40 * PODS as u64, "{used} MiB");
    space.run(&["delete", "pods", "--all", "--timeout=120s"])?;
    settled(&node, &before)
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn two_hundred_containers_after_another_leave_nothing() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let node = Node::new(&cluster)?;
    let ours = cluster.ours()?;
    let image = images::tool(&cluster)?;
    let address = ours.containerd_address.display().to_string();
    let ctr = ours.bin.join("ctr").display().to_string();
    // Two at a time, since the cluster's node is small.
    // In the cluster's namespaces, since it makes the pipes for the output. Its own runtime's
    // name leads to no file that containerd would find, so the path says it.
    let run = |from: usize, to: usize| {
        let script = format!(
            "one() {{ for n in $(seq $1 2 {to}); do \
             {ctr} -a {address} -n k8s.io run --rm --runtime {shim} \
             --cgroup /wick-cluster-{name}/crowd/c$n {image} many-$n /app.wasm 0; done; }}; \
             one {from} & one $(({from} + 1)) & wait",
            shim = ours.shim.display(),
            name = ours.name,
        );
        node.inside(&["sh", "-c", &script])
    };
    run(1, FIRST)?;
    let before = node.counts()?;
    let begun = Instant::now();
    let printed = run(FIRST + 1, FIRST + CYCLES)?;
    let took = begun.elapsed();
    // Each has run, and has printed its arguments.
    let lines = printed.lines().filter(|line| line.ends_with(" 0")).count();
    assert_eq!(lines, CYCLES, "{printed}");
    support::say(&format!("{CYCLES} containers took {took:.1?}"));
    settled(&node, &before)?;
    let left = node.left(&["many-".to_owned()])?;
    ensure!(left.is_empty(), "{left:#?}");
    Ok(())
}
