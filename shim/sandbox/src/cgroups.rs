//! The container's own control groups, read-only, as its `/sys/fs/cgroup`: a worker reads its
//! CPU quota there. The process is in a cgroup namespace, so nothing above is to be seen.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::mount::MountFlags;

use crate::error::{LockdownError, Step as _};
use crate::root::{Kind, Root, by_descriptor};

/// Where the node has its control groups.
const NODE: &str = "/sys/fs/cgroup";

/// What `statfs` says of the unified hierarchy.
const CGROUP2: rustix::fs::FsWord = 0x6367_7270;

/// The cgroup namespace of the node, whose number the kernel has fixed.
const NODE_NAMESPACE: u64 = 0xefff_fffb;

/// Options of the file system that the folders of the old hierarchies lie in.
const FOLDERS: &str = "mode=755,size=64k";

/// A hierarchy of version 1 or, beside others, of version 2.
#[derive(Debug, PartialEq, Eq)]
struct Hierarchy {
    folder: String,
    kind: &'static str,
    data: String,
}

pub(crate) fn mount(root: &Root, path: &Path) -> Result<(), LockdownError> {
    let namespace = rustix::fs::stat("/proc/self/ns/cgroup")
        .step(|| "look at this process's cgroup namespace".to_owned())?;
    if namespace.st_ino == NODE_NAMESPACE {
        return Err(LockdownError::refused(
            format!("the mount on {}", path.display()),
            "without a cgroup namespace it would show the groups of the whole node",
        ));
    }
    let point = root.mount_point(path, Kind::Folder)?;
    let unified = rustix::fs::statfs(NODE)
        .step(|| format!("look at {NODE} of the node"))
        .map(|stat| stat.f_type == CGROUP2)?;
    if unified {
        let hierarchy = Hierarchy { folder: String::new(), kind: "cgroup2", data: String::new() };
        return mount_one(&point, &hierarchy, path);
    }
    let groups = std::fs::read_to_string("/proc/self/cgroup")
        .step(|| "read /proc/self/cgroup".to_owned())?;
    let step = || format!("mount a file system on {} of the container", path.display());
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let data = CString::new(FOLDERS).unwrap_or_default();
    rustix::mount::mount("cgroup", by_descriptor(&point), "tmpfs", flags, data.as_c_str())
        .step(step)?;
    let folders = root.mount_point(path, Kind::Folder)?;
    for hierarchy in hierarchies(&groups) {
        if !Path::new(NODE).join(&hierarchy.folder).exists() {
            // A hierarchy that the node knows and does not use.
            continue;
        }
        let place = path.join(&hierarchy.folder);
        rustix::fs::mkdirat(&folders, &hierarchy.folder, Mode::from_raw_mode(0o755)).step(step)?;
        let point = root.mount_point(&place, Kind::Folder)?;
        mount_one(&point, &hierarchy, &place)?;
        for name in hierarchy.names() {
            // `cpu` beside `cpu,cpuacct`, as everybody expects.
            rustix::fs::symlinkat(&hierarchy.folder, &folders, name).step(step)?;
        }
    }
    let flags = flags | MountFlags::RDONLY;
    rustix::mount::mount_remount(by_descriptor(&folders), flags, c"").step(step)
}

fn mount_one(point: &OwnedFd, hierarchy: &Hierarchy, path: &Path) -> Result<(), LockdownError> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RDONLY;
    let data = CString::new(hierarchy.data.as_str()).unwrap_or_default();
    let target: PathBuf = by_descriptor(point);
    rustix::mount::mount("cgroup", target, hierarchy.kind, flags, data.as_c_str())
        .step(|| format!("mount the control groups on {} of the container", path.display()))
}

/// The hierarchies in the text of `/proc/self/cgroup`, `id:controllers:path`.
fn hierarchies(groups: &str) -> Vec<Hierarchy> {
    let controllers = groups.lines().filter_map(|line| line.split(':').nth(1));
    let hierarchies = controllers.map(|controllers| match controllers.strip_prefix("name=") {
        Some(name) => {
            Hierarchy { folder: name.to_owned(), kind: "cgroup", data: format!("none,name={name}") }
        }
        None if controllers.is_empty() => {
            Hierarchy { folder: "unified".to_owned(), kind: "cgroup2", data: String::new() }
        }
        None => Hierarchy {
            folder: controllers.to_owned(),
            kind: "cgroup",
            data: controllers.to_owned(),
        },
    });
    // A name with a slash would be a path.
    hierarchies.filter(|hierarchy| !hierarchy.folder.contains('/')).collect()
}

// === impl Hierarchy ===

impl Hierarchy {
    /// Each controller of a hierarchy that has several.
    fn names(&self) -> impl Iterator<Item = &str> {
        self.folder.split(',').filter(|name| name.len() < self.folder.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_read_from_the_kernel_s_list() {
        let found = hierarchies("9:name=systemd:/\n4:cpu,cpuacct:/\n3:memory:/a\n0::/\n");
        let short: Vec<_> =
            found.iter().map(|one| (one.folder.as_str(), one.kind, one.data.as_str())).collect();
        let want = [
            ("systemd", "cgroup", "none,name=systemd"),
            ("cpu,cpuacct", "cgroup", "cpu,cpuacct"),
            ("memory", "cgroup", "memory"),
            ("unified", "cgroup2", ""),
        ];
        assert_eq!(short, want);
        assert_eq!(found[1].names().collect::<Vec<_>>(), ["cpu", "cpuacct"]);
        assert_eq!(found[2].names().count(), 0);
    }
}
