//! How many CPUs this process may use: its affinity and its cgroup's quota.
//!
//! The text of the files in `/proc` and `/sys` is parsed by pure functions; only
//! [`detect`] reads. The standard library's count rounds a quota of 1.5 CPUs down
//! to 1, which would leave a third of it unused, so it is not enough.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

/// A mounted cgroup hierarchy that limits CPU time, and this process's group in it.
#[derive(Debug, PartialEq)]
struct Hierarchy {
    version: Version,
    mount: PathBuf,
    /// Below the mount; empty for the group that is mounted.
    group: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Version {
    V1,
    V2,
}

/// CPUs that this process may use, at least 1. A quota is rounded up.
pub(crate) fn detect() -> usize {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let affinity = affinity(&read("/proc/self/status"))
        .unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    let quota = hierarchies(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"))
        .iter()
        .filter_map(smallest_quota)
        .reduce(f64::min);
    bounded(affinity, quota)
}

fn bounded(affinity: usize, quota: Option<f64>) -> usize {
    // A float that is out of range saturates, which `min` then bounds.
    let quota = quota.map_or(usize::MAX, |cpus| cpus.ceil() as usize);
    affinity.min(quota).max(1)
}

/// The number of CPUs in the `Cpus_allowed_list` line of `/proc/self/status`.
fn affinity(status: &str) -> Option<usize> {
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    list.trim().split(',').map(range_len).sum()
}

/// The length of `7` or `0-3`.
fn range_len(range: &str) -> Option<usize> {
    match range.split_once('-') {
        None => range.parse::<usize>().ok().map(|_| 1),
        Some((first, last)) => {
            let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
            last.checked_sub(first)?.checked_add(1)
        }
    }
}

fn hierarchies(groups: &str, mounts: &str) -> Vec<Hierarchy> {
    groups.lines().filter_map(|line| hierarchy(line, mounts)).collect()
}

/// The hierarchy of one line of `/proc/self/cgroup`, `id:controllers:path`.
fn hierarchy(line: &str, mounts: &str) -> Option<Hierarchy> {
    let mut parts = line.splitn(3, ':');
    let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    let version = match controllers {
        "" => Version::V2,
        list if list.split(',').any(|controller| controller == "cpu") => Version::V1,
        _ => return None,
    };
    let (root, mount) = mounts.lines().find_map(|line| mount_of(line, version))?;
    // In a container the mounted root may itself be a group; below it counts.
    let group = Path::new(path).strip_prefix(root).unwrap_or_else(|_| Path::new(""));
    Some(Hierarchy { version, mount: mount.into(), group: group.to_owned() })
}

/// Root and mount point of a `/proc/self/mountinfo` line that mounts the wanted
/// hierarchy.
fn mount_of(line: &str, version: Version) -> Option<(&str, &str)> {
    let (fields, kind) = line.split_once(" - ")?;
    let mut fields = fields.split(' ').skip(3);
    let (root, mount) = (fields.next()?, fields.next()?);
    let mut kind = kind.split(' ');
    let (filesystem, options) = (kind.next()?, kind.nth(1).unwrap_or_default());
    let fits = match version {
        Version::V2 => filesystem == "cgroup2",
        Version::V1 => filesystem == "cgroup" && options.split(',').any(|option| option == "cpu"),
    };
    fits.then_some((root, mount))
}

/// The smallest quota of the group and its parents: each of them binds.
fn smallest_quota(hierarchy: &Hierarchy) -> Option<f64> {
    let folders = hierarchy.group.ancestors().map(|group| hierarchy.mount.join(group));
    folders.filter_map(|folder| quota_of(&folder, hierarchy.version)).reduce(f64::min)
}

fn quota_of(folder: &Path, version: Version) -> Option<f64> {
    let read = |file: &str| fs::read_to_string(folder.join(file)).ok();
    match version {
        Version::V2 => {
            let text = read("cpu.max")?;
            let (quota, period) = text.trim().split_once(' ')?;
            ratio(quota, period)
        }
        Version::V1 => ratio(read("cpu.cfs_quota_us")?.trim(), read("cpu.cfs_period_us")?.trim()),
    }
}

/// Quota over period in CPUs; none for `max`, -1 and nonsense.
fn ratio(quota: &str, period: &str) -> Option<f64> {
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_rounded_up_and_never_zero() {
        let cases =
            [(8, None, 8), (8, Some(1.5), 2), (8, Some(0.1), 1), (2, Some(64.0), 2), (0, None, 1)];
        for (affinity, quota, want) in cases {
            assert_eq!(bounded(affinity, quota), want, "{affinity} {quota:?}");
        }
    }

    #[test]
    fn the_affinity_list_is_counted() {
        let count = |list: &str| affinity(&format!("Name:\tx\nCpus_allowed_list:\t{list}\n"));
        assert_eq!(count("0-3,8,10-11"), Some(7));
        assert_eq!(count("5"), Some(1));
        assert_eq!(count("3-1"), None);
        assert_eq!(affinity("Name:\tx\n"), None);
    }

    #[test]
    fn the_group_is_found_in_both_versions() {
        let mounts = "30 24 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                      35 24 0:30 /docker/a /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n";
        let found = hierarchies("1:cpu,cpuacct:/docker/a/b\n2:memory:/x\n0::/user\n", mounts);
        let want = [
            (Version::V1, "/sys/fs/cgroup/cpu", "b"),
            (Version::V2, "/sys/fs/cgroup/unified", "user"),
        ];
        let want = want.map(|(version, mount, group)| Hierarchy {
            version,
            mount: mount.into(),
            group: group.into(),
        });
        assert_eq!(found, want);
    }

    #[test]
    fn the_smallest_quota_of_the_parents_binds() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("a/b")).unwrap();
        for (file, text) in [("a/cpu.max", "150000 100000\n"), ("a/b/cpu.max", "max 100000\n")] {
            fs::write(folder.path().join(file), text).unwrap();
        }
        let hierarchy =
            Hierarchy { version: Version::V2, mount: folder.path().into(), group: "a/b".into() };
        assert_eq!(smallest_quota(&hierarchy), Some(1.5));
    }

    #[test]
    fn the_old_files_are_read_as_well() {
        let folder = tempfile::tempdir().unwrap();
        for (file, text) in [("cpu.cfs_quota_us", "-1\n"), ("cpu.cfs_period_us", "100000\n")] {
            fs::write(folder.path().join(file), text).unwrap();
        }
        assert_eq!(quota_of(folder.path(), Version::V1), None);
        fs::write(folder.path().join("cpu.cfs_quota_us"), "250000\n").unwrap();
        assert_eq!(quota_of(folder.path(), Version::V1), Some(2.5));
    }
}
