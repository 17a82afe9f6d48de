//! A cluster's cgroups: one folder in each hierarchy that the machine has, of version 1 or
//! 2, with the daemons in `system` and the kubelet's pods beside it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::instance::Name;

/// How long an emptied cgroup may stay busy: its last processes are still being taken down.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause between two tries.
const POLL: Duration = Duration::from_millis(20);

/// The roots of all hierarchies, as `/proc/self/mountinfo` lists them.
pub fn hierarchies() -> anyhow::Result<Vec<PathBuf>> {
    let text = fs::read_to_string("/proc/self/mountinfo").context("read the list of mounts")?;
    Ok(parse(&text))
}

/// The cluster's folder in every hierarchy where it exists.
pub fn roots(name: &Name) -> anyhow::Result<Vec<PathBuf>> {
    let roots = hierarchies()?.into_iter().map(|hierarchy| hierarchy.join(name.cgroup()));
    Ok(roots.filter(|root| root.is_dir()).collect())
}

/// Create the cluster's folders; returns those that the daemons enter.
pub fn create(name: &Name) -> anyhow::Result<Vec<PathBuf>> {
    let mut entered = Vec::new();
    for hierarchy in hierarchies()? {
        let root = hierarchy.join(name.cgroup());
        let system = root.join("system");
        enable_controllers(&hierarchy)?;
        fs::create_dir_all(&root).with_context(|| format!("create {}", root.display()))?;
        enable_controllers(&root)?;
        fs::create_dir_all(&system).with_context(|| format!("create {}", system.display()))?;
        inherit_cpuset(&hierarchy, &root)?;
        inherit_cpuset(&root, &system)?;
        entered.push(system);
    }
    Ok(entered)
}

/// Remove every cgroup of the cluster, the innermost first. The processes must have ended.
pub fn remove(name: &Name) -> anyhow::Result<()> {
    for root in roots(name)? {
        let deadline = Instant::now() + REMOVE_TIMEOUT;
        while let Err(error) = remove_tree(&root) {
            if Instant::now() > deadline {
                return Err(error).with_context(|| format!("remove {}", root.display()));
            }
            sleep(POLL);
        }
    }
    Ok(())
}

/// Numbers of all processes in the cluster's cgroups.
pub fn processes(name: &Name) -> anyhow::Result<Vec<i32>> {
    let mut numbers = Vec::new();
    let mut folders = roots(name)?;
    while let Some(folder) = folders.pop() {
        // A cgroup may go while it is looked at.
        let procs = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        numbers.extend(procs.lines().filter_map(|line| line.parse::<i32>().ok()));
        folders.extend(subfolders(&folder).unwrap_or_default());
    }
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

/// A cgroup of version 2 has the controllers that the one above it hands down, and the kubelet wants all of them.
fn enable_controllers(folder: &Path) -> anyhow::Result<()> {
    // There is no such file in hierarchies of version 1, and no memory beside them.
    let controllers = fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
    if !controllers.split_whitespace().any(|one| one == "memory") {
        return Ok(());
    }
    let wanted: Vec<String> = controllers.split_whitespace().map(|one| format!("+{one}")).collect();
    let file = folder.join("cgroup.subtree_control");
    fs::write(&file, wanted.join(" ")).with_context(|| format!("write {}", file.display()))
}

/// A new cpuset of version 1 has no CPU and takes no process until it is given some.
fn inherit_cpuset(parent: &Path, child: &Path) -> anyhow::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let (from, to) = (parent.join(file), child.join(file));
        let is_v1 = !parent.join("cgroup.controllers").exists();
        if is_v1 && from.exists() && fs::read_to_string(&to)?.trim().is_empty() {
            let value = fs::read_to_string(&from)?;
            fs::write(&to, value.trim()).with_context(|| format!("write {}", to.display()))?;
        }
    }
    Ok(())
}

fn remove_tree(folder: &Path) -> io::Result<()> {
    for below in subfolders(folder)? {
        remove_tree(&below)?;
    }
    match fs::remove_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn subfolders(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let folders = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        entry.file_type().ok()?.is_dir().then(|| entry.path())
    });
    Ok(folders.collect())
}

/// Mount points of cgroup file systems. The fields after ` - ` start with the type.
fn parse(mountinfo: &str) -> Vec<PathBuf> {
    let hierarchy = |line: &str| {
        let (mount, kind) = line.split_once(" - ")?;
        let kind = kind.split(' ').next()?;
        let point = mount.split(' ').nth(4)?;
        matches!(kind, "cgroup" | "cgroup2").then(|| PathBuf::from(point))
    };
    let mut points: Vec<PathBuf> = mountinfo.lines().filter_map(hierarchy).collect();
    points.sort();
    points.dedup();
    points
}

/// Whether there is a hierarchy at all; without one no kubelet starts.
pub fn check() -> anyhow::Result<()> {
    if hierarchies()?.is_empty() {
        bail!("no cgroup hierarchy is mounted, and a kubelet needs one: mount /sys/fs/cgroup");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_both_versions_are_found_once() {
        let text = "\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 29 0:27 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
31 29 0:28 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw
32 29 0:28 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
        let expected = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified"].map(PathBuf::from);
        assert_eq!(parse(text), expected);
    }
}
