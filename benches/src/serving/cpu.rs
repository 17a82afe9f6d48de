//! What a server and all its children have used: processor time and memory. Triton and
//! MLServer run models in processes of their own, so one process tells too little.

use std::collections::BTreeMap;
use std::fs;

use anyhow::Context as _;

/// USER_HZ is 100 on every Linux that wick runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// What the kernel says about one process.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    /// Of all its threads, and of the children that it has waited for.
    ticks: u64,
}

/// Processor time of a process and its descendants, in seconds.
pub fn seconds(root: u32) -> anyhow::Result<f64> {
    let table = processes()?;
    let ticks: u64 = tree(&table, root).iter().map(|pid| table[pid].ticks).sum();
    Ok(ticks as f64 / TICKS_PER_SECOND)
}

/// Resident memory of a process and its descendants, in MiB.
pub fn resident_mib(root: u32) -> anyhow::Result<f64> {
    let kib: u64 = tree(&processes()?, root).into_iter().filter_map(resident_kib).sum();
    Ok(kib as f64 / 1024.0)
}

fn resident_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches(" kB").trim().parse().ok()
}

/// A figure of the kernel's about one process, such as `VmHWM`, in MiB.
pub fn status_mib(pid: u32, field: &str) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("the process {pid} has ended"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.trim_start_matches(':').split_whitespace().next());
    Ok(kib.with_context(|| format!("no {field}"))?.parse::<f64>()? / 1024.0)
}

fn processes() -> anyhow::Result<BTreeMap<u32, Stat>> {
    let mut table = BTreeMap::new();
    for entry in fs::read_dir("/proc").context("list /proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process may end while the table is read.
        if let Ok(text) = fs::read_to_string(format!("/proc/{pid}/stat")) {
            table.insert(pid, Stat::parse(&text).with_context(|| format!("stat of {pid}"))?);
        }
    }
    Ok(table)
}

/// A process and its descendants, as far as they are in the table.
fn tree(table: &BTreeMap<u32, Stat>, root: u32) -> Vec<u32> {
    let mut found: Vec<u32> = table.contains_key(&root).then_some(root).into_iter().collect();
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        let children = table.iter().filter(|(_, stat)| stat.parent == parent);
        found.extend(children.map(|(pid, _)| *pid));
        next += 1;
    }
    found
}

// === impl Stat ===

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The name in brackets may hold spaces; the other fields follow the last bracket.
        let (_, fields) = text.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        // State, parent, and from the 12th on: utime, stime, cutime, cstime.
        let ticks: Option<u64> =
            fields.get(11..15)?.iter().map(|field| field.parse::<u64>().ok()).sum();
        Some(Self { parent: fields.get(1)?.parse().ok()?, ticks: ticks? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_brackets_does_not_shift_the_fields() {
        let text = "7 (a b) c)) S 3 7 7 0 -1 4194304 1 2 3 4 10 20 30 40 20 0 1 0 5 6 7";
        assert_eq!(Stat::parse(text), Some(Stat { parent: 3, ticks: 100 }));
        assert_eq!(Stat::parse("7 (a) S 3"), None);
    }

    #[test]
    fn children_of_children_belong_to_the_tree_and_strangers_do_not() {
        let stat = |parent| Stat { parent, ticks: 1 };
        let table = BTreeMap::from([(2, stat(1)), (3, stat(2)), (4, stat(3)), (5, stat(1))]);
        assert_eq!(tree(&table, 2), [2, 3, 4]);
        assert_eq!(tree(&table, 9), [0_u32; 0]);
    }
}
