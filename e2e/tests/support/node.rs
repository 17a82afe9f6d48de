//! A container as its node sees it: its process, and its control groups of v1 or v2. Only for
//! clusters whose node is the machine that the tests run on.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use wick_e2e::cluster::Cluster;
use wick_e2e::kubectl::Namespace;

use super::{END_TIMEOUT, status};

/// Where control groups are mounted.
const GROUPS: &str = "/sys/fs/cgroup";

/// A device that does no harm: it only hands out file systems of one's own, and opening it
/// needs nothing but the right to.
pub const DEVICE: &str = "/dev/fuse";

/// The first process of a container, and with it the container.
pub struct Process {
    pub pid: u32,
    /// `/proc/PID/cgroup`.
    groups: String,
}

/// A folder that a test and the node see at the same path; removed when dropped.
pub struct Folder {
    pub path: PathBuf,
}

// === impl Process ===

impl Process {
    /// The first process of a running container.
    pub fn of(cluster: &Cluster, space: &Namespace, pod: &str, name: &str) -> anyhow::Result<Self> {
        cluster.ours()?;
        let id = space.wait(&format!("pod/{pod}"), "running", END_TIMEOUT, |pod| {
            let status = status(pod, name);
            let running = !status["state"]["running"].is_null();
            let id = status["containerID"].as_str().filter(|_| running);
            Ok(id.and_then(|id| id.strip_prefix("containerd://")).map(str::to_owned))
        })?;
        Self::by_id(&id)
    }

    /// The first process of a container that has this name for containerd.
    pub fn by_id(id: &str) -> anyhow::Result<Self> {
        let found = numbers()?.into_iter().find_map(|pid| {
            let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
            groups.contains(id).then_some(Self { pid, groups })
        });
        found.with_context(|| format!("no process in the control group of {id}"))
    }

    /// A line of `/proc/PID/status`, without its name.
    pub fn status(&self, field: &str) -> anyhow::Result<String> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let line = line.with_context(|| format!("no {field}"))?;
        Ok(line.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// The same file in the mount namespace of the process.
    pub fn inside(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.pid))
    }

    pub fn kill(&self, signal: &str) -> anyhow::Result<()> {
        let kill = Command::new("kill").args([signal, &self.pid.to_string()]).status()?;
        ensure!(kill.success(), "kill {signal}: {kill}");
        Ok(())
    }

    /// Its memory limit in bytes.
    pub fn memory_limit(&self) -> anyhow::Result<u64> {
        let file = if self.is_v1() { "memory.limit_in_bytes" } else { "memory.max" };
        number(&self.group("memory")?.join(file))
    }

    /// The memory limit of its pod.
    pub fn pod_memory_limit(&self) -> anyhow::Result<u64> {
        let file = if self.is_v1() { "memory.limit_in_bytes" } else { "memory.max" };
        let group = self.group("memory")?;
        number(&group.parent().context("no pod")?.join(file))
    }

    /// Its CPU limit in thousandths.
    pub fn cpu_limit(&self) -> anyhow::Result<u64> {
        let group = self.group("cpu")?;
        if self.is_v1() {
            let quota = number(&group.join("cpu.cfs_quota_us"))?;
            return Ok(quota * 1000 / number(&group.join("cpu.cfs_period_us"))?);
        }
        let text = fs::read_to_string(group.join("cpu.max"))?;
        let (quota, period) = text.trim().split_once(' ').context("cpu.max")?;
        Ok(quota.parse::<u64>()? * 1000 / period.parse::<u64>()?)
    }

    /// What the device group allows, a line each; on v2 that is a program, which has no text.
    pub fn devices(&self) -> anyhow::Result<Option<String>> {
        if !self.is_v1() {
            return Ok(None);
        }
        Ok(Some(fs::read_to_string(self.group("devices")?.join("devices.list"))?))
    }

    /// Check that it has [`DEVICE`] at this path, and may open it.
    pub fn check_device(&self, path: &str) -> anyhow::Result<()> {
        let number = fs::metadata(DEVICE).with_context(|| format!("no {DEVICE}"))?.rdev();
        let node = fs::metadata(self.inside(path)).with_context(|| format!("no {path}"))?;
        ensure!(node.file_type().is_char_device() && node.rdev() == number, "{path}: {node:?}");
        let (major, minor) = ((number >> 8) & 0xfff, number & 0xff);
        let line = format!("c {major}:{minor} rw");
        let devices = self.devices()?;
        let allowed = devices.is_none_or(|text| text.lines().any(|known| known == line));
        ensure!(allowed, "{path} may not be opened");
        Ok(())
    }

    fn is_v1(&self) -> bool {
        self.groups.lines().any(|line| line.contains(":memory:"))
    }

    /// Its group in one hierarchy.
    fn group(&self, controller: &str) -> anyhow::Result<PathBuf> {
        let mut lines = self.groups.lines().map(|line| line.splitn(3, ':').collect::<Vec<_>>());
        let v1 = self.is_v1();
        let found = lines.find_map(|line| match line.as_slice() {
            [_, names, path] if names.split(',').any(|name| name == controller) => Some(*path),
            ["0", "", path] if !v1 => Some(*path),
            _ => None,
        });
        let path = found.with_context(|| format!("no group of {controller}"))?;
        let root = if v1 { Path::new(GROUPS).join(controller) } else { GROUPS.into() };
        Ok(root.join(path.trim_start_matches('/')))
    }
}

// === impl Folder ===

impl Folder {
    /// In the cluster's own folder, which its node sees at the same path.
    pub fn new(cluster: &Cluster, name: &str) -> anyhow::Result<Self> {
        Self::at(cluster, &format!("e2e-{name}-{}", std::process::id()))
    }

    /// What the node has as `/run/NAME`, which is not what this machine has there.
    pub fn of_run(cluster: &Cluster, name: &str) -> anyhow::Result<Self> {
        Self::at(cluster, &format!("own/run/{name}"))
    }

    fn at(cluster: &Cluster, below: &str) -> anyhow::Result<Self> {
        let logs = &cluster.ours()?.logs;
        let path = logs.parent().context("the cluster has no folder")?.join(below);
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self { path })
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> anyhow::Result<()> {
        let file = self.path.join(name);
        fs::create_dir_all(file.parent().context("a file without a folder")?)?;
        fs::write(&file, bytes).with_context(|| format!("write {}", file.display()))
    }

    pub fn read(&self, name: &str) -> anyhow::Result<String> {
        let file = self.path.join(name);
        fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // The cluster's folder goes with the cluster in any case.
        fs::remove_dir_all(&self.path).ok();
    }
}

/// The numbers of all processes.
fn numbers() -> anyhow::Result<Vec<u32>> {
    let entries = fs::read_dir("/proc").context("list processes")?;
    let names = entries.filter_map(|entry| Some(entry.ok()?.file_name()));
    Ok(names.filter_map(|name| name.to_str()?.parse().ok()).collect())
}

fn number(file: &Path) -> anyhow::Result<u64> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    text.trim().parse().with_context(|| format!("{}: `{}`", file.display(), text.trim()))
}
