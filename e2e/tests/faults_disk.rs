//! A node's cache whose device is full, or becomes full while a component is compiled: a pod is
//! slower then, and starts all the same.

mod support;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use support::machine::Node;
use support::{PORT, Pod};
use wick_e2e::cluster::Cluster;
use wick_e2e::http::Request;
use wick_e2e::image::Image;
use wick_e2e::kubectl::Namespace;
use wick_e2e::package;
use wick_e2e::wait::wait;

/// More than the shim wants to see free before it compiles, and less than the ballast below.
const SMALL: &str = "20m";

/// What the component is made larger by, compiled too.
const BALLAST: usize = 24 << 20;

/// A cache on a small device of its own; taken off again when dropped.
struct Cache<'a> {
    node: &'a Node<'a>,
    path: PathBuf,
}

// === impl Cache ===

impl<'a> Cache<'a> {
    fn new(node: &'a Node<'a>, size: &str) -> anyhow::Result<Self> {
        let path = node.folder()?.join("wick/cache");
        let options = format!("size={size},mode=755");
        let target = path.display().to_string();
        node.inside(&["mount", "-t", "tmpfs", "-o", &options, "tmpfs", &target])?;
        Ok(Self { node, path })
    }

    fn grow(&self, size: &str) -> anyhow::Result<()> {
        let (options, target) = (format!("remount,size={size}"), self.path.display().to_string());
        self.node.inside(&["mount", "-o", &options, &target]).map(drop)
    }

    /// Its plain files below a folder, as `size path`.
    fn files(&self, folder: &str) -> anyhow::Result<Vec<String>> {
        let below = self.path.join(folder).display().to_string();
        let find = format!("find {below} -type f -printf '%s %p\\n'");
        Ok(self.node.inside(&["sh", "-c", &find])?.lines().map(str::to_owned).collect())
    }
}

impl Drop for Cache<'_> {
    fn drop(&mut self) {
        // Lazily: a worker may have it open. What fails here is seen by the next test.
        self.node.inside(&["umount", "-l", &self.path.display().to_string()]).ok();
    }
}

/// An image of a component that no run before has compiled, larger by `ballast` bytes that are
/// compiled along.
fn uncompiled(cluster: &Cluster, reference: &str, ballast: usize) -> anyhow::Result<()> {
    let mut component = std::fs::read(package::guest("web")?)?;
    if ballast > 0 {
        // A module in it that nobody uses, of one passive data segment.
        let segment = [&[1, 1][..], &leb(ballast), &vec![0x5a; ballast]].concat();
        let module = [b"\0asm\x01\0\0\0", &section(11, &segment)[..]].concat();
        component.extend(section(1, &module));
    }
    // A section that nobody reads, with a number of its own.
    let unique = format!("\x05e2e-x{:032x}", std::time::UNIX_EPOCH.elapsed()?.as_nanos());
    component.extend(section(0, unique.as_bytes()));
    cluster.import(&Image::new(reference).file("/app.wasm", component).entrypoint(&["/app.wasm"]))
}

fn section(id: u8, bytes: &[u8]) -> Vec<u8> {
    [&[id][..], &leb(bytes.len()), bytes].concat()
}

/// A number as WebAssembly writes it.
fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(number & 0x7f).unwrap_or_default();
        number >>= 7;
        bytes.push(if number == 0 { low } else { low | 0x80 });
        if number == 0 {
            return bytes;
        }
    }
}

/// Start a pod of an image until it answers, and what containerd's log says of it.
fn started(node: &Node<'_>, space: &Namespace, pod: &str, image: &str) -> anyhow::Result<String> {
    let before = node.containerd_log()?.len();
    space.apply(&Pod::new(pod, image).probed().yaml())?;
    let addr = (space.ready_pod(pod)?, PORT).into();
    let request = Request { method: "POST", path: "/echo", headers: &[], body: b"there and back" };
    let answer = wait("an answer", Duration::from_secs(10), || Ok(request.send(addr).ok()))?;
    ensure!(answer.text() == "there and back", "{}", answer.text());
    Ok(node.containerd_log()?.get(before..).unwrap_or_default().to_owned())
}

fn warned(log: &str) -> anyhow::Result<()> {
    let warned = log.lines().find(|line| line.contains("not compiled ahead"));
    let warned = warned.context("no warning in containerd's log")?;
    assert!(warned.contains("warning") && warned.contains("No space left"), "{warned}");
    Ok(())
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_full_cache_costs_time_and_not_the_pod() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let node = Node::new(&cluster)?;
    let space = cluster.kubectl.namespace("faults")?;
    let image = "docker.io/local/never-compiled:1";
    uncompiled(&cluster, image, 0)?;
    let cache = Cache::new(&node, "16k")?;
    // It says that there is no space, which is the point.
    let full = cache.path.join("full").display().to_string();
    node.inside(&["sh", "-c", &format!("cat /dev/zero > {full} || true")])?;
    let log = started(&node, &space, "web", image)?;
    space.delete()?;
    warned(&log)
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_cache_that_fills_up_while_it_compiles_keeps_nothing_and_is_tried_again() -> anyhow::Result<()>
{
    let cluster = Cluster::attach()?;
    let node = Node::new(&cluster)?;
    let space = cluster.kubectl.namespace("faults")?;
    let image = "docker.io/local/larger-than-the-cache:1";
    uncompiled(&cluster, image, BALLAST)?;
    let cache = Cache::new(&node, SMALL)?;
    let log = started(&node, &space, "first", image)?;
    warned(&log)?;
    for folder in ["images", "staging"] {
        let left = cache.files(folder)?;
        ensure!(left.is_empty(), "in {folder}: {left:?}");
    }
    // Tried once, and not at each start of the image.
    let log = started(&node, &space, "second", image)?;
    ensure!(!log.contains("not compiled ahead"), "{log}");
    ensure!(cache.files("images")?.is_empty(), "something was compiled");
    cache.grow("200m")?;
    let log = started(&node, &space, "third", image)?;
    ensure!(!log.contains("not compiled ahead"), "{log}");
    let sizes = cache.files("images")?;
    let is_large = |line: &String| {
        let size = line.split(' ').next().and_then(|size| size.parse::<usize>().ok());
        size.is_some_and(|size| size > BALLAST)
    };
    ensure!(sizes.iter().any(is_large), "nothing was compiled: {sizes:?}");
    space.delete()
}
