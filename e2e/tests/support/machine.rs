//! The node behind a cluster of ours, seen from the machine: which processes, mounts, control
//! groups and bundles are whose. Everything is found by the numbers of a pod and of its
//! containers, and nothing else is ever signalled.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use wick_e2e::cluster::{Cluster, xtask};
use wick_e2e::kubectl::Namespace;
use wick_e2e::wait::wait;

/// Where the machine's control groups are.
const GROUPS: &str = "/sys/fs/cgroup";

/// Longest until something that was killed is gone, and until containerd answers again.
const SOON: Duration = Duration::from_secs(20);

/// The node of a cluster.
pub struct Node<'a> {
    cluster: &'a Cluster,
}

/// A pod's processes at one moment.
#[derive(Clone, Debug)]
pub struct Running {
    pub uid: String,
    /// The numbers of its sandbox and its containers, as containerd knows them.
    pub ids: Vec<String>,
    pub shim: u32,
    pub pause: u32,
    /// All but the pause process.
    pub workers: Vec<u32>,
}

/// What grows when something is left behind.
#[derive(Debug, PartialEq, Eq)]
pub struct Counts {
    pub processes: usize,
    pub mounts: usize,
    pub groups: usize,
    pub bundles: usize,
    /// Open files of containerd.
    pub descriptors: usize,
}

// === impl Node ===

impl<'a> Node<'a> {
    pub fn new(cluster: &'a Cluster) -> anyhow::Result<Self> {
        cluster.ours()?;
        Ok(Self { cluster })
    }

    /// The number of a daemon on the machine.
    pub fn daemon(&self, command: &str) -> anyhow::Result<u32> {
        let processes = self.cluster.processes()?;
        let found = processes.iter().find(|process| process.command == command);
        Ok(found.with_context(|| format!("no {command} runs"))?.pid)
    }

    /// The processes of a pod that has a sandbox and a container.
    pub fn running(&self, space: &Namespace, pod: &str) -> anyhow::Result<Running> {
        let uid = self.uid(space, pod)?;
        wait(&format!("the processes of {pod}"), SOON, || Ok(self.running_now(&uid)))
    }

    pub fn uid(&self, space: &Namespace, pod: &str) -> anyhow::Result<String> {
        let value = space.get(&format!("pod/{pod}"))?.context("no such pod")?;
        Ok(value["metadata"]["uid"].as_str().context("no uid")?.to_owned())
    }

    fn running_now(&self, uid: &str) -> Option<Running> {
        let ids: Vec<String> = children(&self.group(uid)?)
            .iter()
            .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
            .collect();
        let (pauses, workers): (Vec<u32>, Vec<u32>) = self
            .processes_of(uid)
            .into_iter()
            .partition(|pid| command_line(*pid).contains("pause"));
        let pause = *pauses.first()?;
        let shim = field(&status(pause), "PPid").parse().ok()?;
        let full = ids.len() >= 2 && !workers.is_empty();
        full.then(|| Running { uid: uid.to_owned(), ids, shim, pause, workers })
    }

    /// The freezer's group of a pod.
    pub fn group(&self, uid: &str) -> Option<PathBuf> {
        let root = Path::new(GROUPS).join("freezer").join(self.root().ok()?);
        groups_below(&root).into_iter().find(|path| path.ends_with(format!("pod{uid}")))
    }

    /// What runs in a pod's groups now.
    pub fn processes_of(&self, uid: &str) -> Vec<u32> {
        let groups = self.group(uid).map(|path| groups_below(&path)).unwrap_or_default();
        groups.iter().flat_map(|group| processes_in(group)).collect()
    }

    /// Freeze or thaw all that is in a pod, and what comes into it.
    pub fn freeze(&self, uid: &str, frozen: bool) -> anyhow::Result<()> {
        let group = self.group(uid).context("the pod has no group")?;
        let state = if frozen { "FROZEN" } else { "THAWED" };
        Ok(fs::write(group.join("freezer.state"), state)?)
    }

    /// Run a command in the cluster's namespaces.
    pub fn inside(&self, words: &[&str]) -> anyhow::Result<String> {
        let mut args = vec!["cluster", "exec", self.cluster.ours()?.name.as_str()];
        args.extend(words);
        xtask(&args)
    }

    /// Where containerd keeps a container.
    pub fn bundle(&self, id: &str) -> anyhow::Result<PathBuf> {
        Ok(self.bundles()?.join(id))
    }

    /// The folder of the cluster.
    pub fn folder(&self) -> anyhow::Result<PathBuf> {
        let logs = &self.cluster.ours()?.logs;
        Ok(logs.parent().context("the logs have no folder")?.to_owned())
    }

    /// End containerd without a word.
    pub fn kill_containerd(&self) -> anyhow::Result<()> {
        let pid = self.daemon("containerd")?;
        kill(pid)?;
        wait("the end of containerd", SOON, || Ok((!alive(pid)).then_some(())))
    }

    pub fn start_containerd(&self) -> anyhow::Result<()> {
        xtask(&["cluster", "restart", &self.cluster.ours()?.name, "containerd"])?;
        wait("containerd", SOON, || {
            let version = self.cluster.ctr()?.arg("version").output()?;
            Ok(version.status.success().then_some(()))
        })
    }

    /// containerd's log, which has those of the shims.
    pub fn containerd_log(&self) -> anyhow::Result<String> {
        let file = self.cluster.ours()?.logs.join("containerd.log");
        Ok(String::from_utf8_lossy(&fs::read(file)?).into_owned())
    }

    /// Whatever on the machine has one of these numbers in its name.
    pub fn left(&self, ids: &[String]) -> anyhow::Result<Vec<String>> {
        let is_one = |text: &str| ids.iter().any(|id| text.contains(id));
        let mut left = Vec::new();
        for pid in all_processes() {
            let group = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            let command = command_line(pid);
            if alive(pid) && (is_one(&group) || is_one(&command)) {
                left.push(format!("process {pid} ({command})"));
            }
        }
        // A sandbox's shared memory is containerd's, and stays until the kubelet collects the
        // record of a sandbox that is dead.
        let mounts = self.mounts()?.into_iter().filter(|mount| !mount.contains("/shm "));
        left.extend(mounts.filter(|mount| is_one(mount)));
        let groups = self.groups()?.into_iter().map(|path| path.display().to_string());
        left.extend(groups.filter(|path| is_one(path)));
        let bundles = children(&self.bundles()?).into_iter().map(|path| path.display().to_string());
        left.extend(bundles.filter(|path| is_one(path)));
        Ok(left)
    }

    /// Wait until nothing has one of these numbers.
    pub fn wait_gone(&self, ids: &[String]) -> anyhow::Result<()> {
        let mut left = Vec::new();
        let gone = wait("the end of everything", SOON, || {
            left = self.left(ids)?;
            Ok(left.is_empty().then_some(()))
        });
        gone.with_context(|| format!("left: {left:#?}"))
    }

    pub fn counts(&self) -> anyhow::Result<Counts> {
        let containerd = self.daemon("containerd")?;
        let descriptors = fs::read_dir(format!("/proc/{containerd}/fd"))?.count();
        // Whatever namespace of processes the cluster's are in, its shims and workers are too
        // or have one of their own below it.
        let inside = self.inside(&["sh", "-c", "ls -d /proc/[0-9]* | wc -l"])?;
        Ok(Counts {
            processes: inside.trim().parse().context("the number of processes")?,
            mounts: self.mounts()?.len(),
            groups: self.groups()?.len(),
            bundles: children(&self.bundles()?).len(),
            descriptors,
        })
    }

    fn bundles(&self) -> anyhow::Result<PathBuf> {
        Ok(self.folder()?.join("containerd/state/io.containerd.runtime.v2.task/k8s.io"))
    }

    /// The mounts that containerd sees.
    fn mounts(&self) -> anyhow::Result<Vec<String>> {
        // containerd may be dead at this moment, the kubelet is not.
        let text = fs::read_to_string(format!("/proc/{}/mountinfo", self.daemon("kubelet")?))?;
        Ok(text.lines().map(|line| format!("mount {line}")).collect())
    }

    /// Every group of the cluster in every hierarchy.
    fn groups(&self) -> anyhow::Result<Vec<PathBuf>> {
        let root = self.root()?;
        let hierarchies = children(Path::new(GROUPS));
        Ok(hierarchies.iter().flat_map(|top| groups_below(&top.join(&root))).collect())
    }

    fn root(&self) -> anyhow::Result<String> {
        Ok(format!("wick-cluster-{}", self.cluster.ours()?.name))
    }
}

/// SIGKILL to a process of the cluster.
pub fn kill(pid: u32) -> anyhow::Result<()> {
    signal(pid, "KILL")
}

pub fn signal(pid: u32, name: &str) -> anyhow::Result<()> {
    let sent = Command::new("kill").args([format!("-{name}"), pid.to_string()]).output()?;
    let error = String::from_utf8_lossy(&sent.stderr);
    ensure!(sent.status.success(), "kill -{name} {pid}: {}", error.trim());
    Ok(())
}

/// Whether it runs: a zombie does not.
pub fn alive(pid: u32) -> bool {
    let status = status(pid);
    !status.is_empty() && !field(&status, "State").starts_with('Z')
}

/// `/proc/PID/status`, empty when it has ended.
pub fn status(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default()
}

/// A line of a status.
pub fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let lines = status.lines().filter_map(|line| line.split_once(':'));
    lines.filter(|(known, _)| *known == name).map(|(_, value)| value.trim()).next().unwrap_or("")
}

/// Which namespace of a kind a process is in.
pub fn namespace(pid: u32, kind: &str) -> anyhow::Result<u64> {
    Ok(fs::metadata(format!("/proc/{pid}/ns/{kind}"))?.ino())
}

fn command_line(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

fn all_processes() -> BTreeSet<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn processes_in(group: &Path) -> Vec<u32> {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// A group and all below it.
fn groups_below(group: &Path) -> Vec<PathBuf> {
    if !group.is_dir() {
        return Vec::new();
    }
    let mut found = vec![group.to_owned()];
    for child in children(group) {
        found.extend(groups_below(&child));
    }
    found
}

/// The folders in a folder; none if it is gone.
fn children(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.path()).collect()
}
