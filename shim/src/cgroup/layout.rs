//! Where the control groups are mounted, from one reading of mountinfo.

use std::path::PathBuf;

/// Controllers of v1 that a container has a group in.
const V1: [&str; 11] = [
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "devices",
    "freezer",
    "blkio",
    "pids",
    "hugetlb",
    "perf_event",
    "name=systemd",
];

/// The hierarchies of this node. A hybrid node, which has v1 controllers and an empty v2
/// beside them, is a v1 node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    V1(Vec<Hierarchy>),
    V2(PathBuf),
}

/// A mounted hierarchy of v1 and the controllers in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    pub controllers: Vec<String>,
    pub root: PathBuf,
}

// === impl Layout ===

impl Layout {
    /// From the text of `/proc/self/mountinfo`; `None` if no control group is mounted.
    pub fn parse(mountinfo: &str) -> Option<Self> {
        let mut v1: Vec<Hierarchy> = Vec::new();
        let mut v2 = None;
        for line in mountinfo.lines() {
            let Some((front, back)) = line.split_once(" - ") else { continue };
            let Some(point) = front.split(' ').nth(4) else { continue };
            let mut back = back.split(' ');
            match (back.next(), back.next_back()) {
                (Some("cgroup"), Some(options)) => {
                    let named = |option: &&str| V1.contains(option);
                    let controllers: Vec<String> =
                        options.split(',').filter(named).map(str::to_owned).collect();
                    let new = !v1.iter().any(|h| h.controllers == controllers);
                    // A hierarchy that is mounted twice is entered once.
                    if new && !controllers.is_empty() {
                        v1.push(Hierarchy { controllers, root: unescape(point) });
                    }
                }
                (Some("cgroup2"), _) if v2.is_none() => v2 = Some(unescape(point)),
                _ => {}
            }
        }
        match (v1.iter().any(|h| h.has("memory") || h.has("cpu")), v2) {
            (true, _) => Some(Self::V1(v1)),
            (false, Some(root)) => Some(Self::V2(root)),
            (false, None) => None,
        }
    }
}

// === impl Hierarchy ===

impl Hierarchy {
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|c| c == controller)
    }
}

/// mountinfo writes a space and a few others as three octal digits.
fn unescape(text: &str) -> PathBuf {
    PathBuf::from(text.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hybrid_node_is_a_v1_node() {
        let text = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
90 31 0:32 / /mnt/again rw,relatime - cgroup cgroup rw,memory
";
        let Some(Layout::V1(found)) = Layout::parse(text) else { panic!("not v1") };
        let roots: Vec<_> = found.iter().map(|h| h.root.display().to_string()).collect();
        assert_eq!(
            roots,
            ["/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/systemd"]
        );
        assert!(found[0].has("cpuacct"));
    }

    #[test]
    fn a_node_with_v2_alone_is_a_v2_node() {
        let text =
            "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(Layout::parse(text), Some(Layout::V2("/sys/fs/cgroup".into())));
        assert_eq!(Layout::parse("1 0 0:1 / / rw - ext4 /dev/vda rw\n"), None);
    }
}
