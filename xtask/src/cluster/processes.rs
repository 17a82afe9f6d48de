//! Processes of a cluster as the machine sees them: which they are, what they use, and
//! their end. A process belongs to a cluster when it is in its cgroups or carries its mark;
//! nothing else is ever signalled.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::Serialize;

use super::cgroups;
use super::daemons::MARK;
use super::instance::{Place, Process};

/// How long the kernel may take to end what was killed.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause between two looks.
const POLL: Duration = Duration::from_millis(10);

/// A process, as far as `status` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    /// Its number on the machine.
    pub pid: i32,
    /// Its number inside the cluster.
    pub inner_pid: i32,
    pub command: String,
    /// Memory that it does not share, and its part of what it does.
    pub pss_kib: u64,
}

// === impl Process ===

impl Process {
    /// The process that has this number now.
    pub fn of(pid: i32) -> anyhow::Result<Self> {
        let start = start_of(pid).with_context(|| format!("process {pid} has ended"))?;
        Ok(Self { pid, start })
    }

    pub fn is_alive(self) -> bool {
        start_of(self.pid) == Some(self.start)
    }

    /// Send a signal to this process, and to no later one with its number.
    fn signal(self, signal: Signal) {
        let Some(pid) = Pid::from_raw(self.pid) else { return };
        let Ok(handle) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { return };
        // The handle is of whatever has the number now, so look again before it is used.
        if self.is_alive() {
            // It may end at any moment, which is what is wanted.
            rustix::process::pidfd_send_signal(&handle, signal).ok();
        }
    }
}

/// Everything that belongs to the cluster.
pub fn of_cluster(place: &Place) -> anyhow::Result<Vec<Process>> {
    let mut numbers = cgroups::processes(&place.name)?;
    let mark = format!("{MARK}={}", place.folder.display());
    for entry in fs::read_dir("/proc").context("list the processes")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // A process may end while it is looked at; one of the kernel has no environment.
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        if environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes()) {
            numbers.push(pid);
        }
    }
    numbers.sort_unstable();
    numbers.dedup();
    let numbers = numbers.into_iter().filter(|pid| u32::try_from(*pid) != Ok(std::process::id()));
    Ok(numbers.filter_map(|pid| Process::of(pid).ok()).collect())
}

/// Kill everything that belongs to the cluster, and wait until it is gone.
pub fn kill(place: &Place) -> anyhow::Result<()> {
    let deadline = Instant::now() + KILL_TIMEOUT;
    loop {
        let left = of_cluster(place)?;
        if left.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "processes that cannot be killed: {}", list(&left));
        for process in &left {
            process.signal(Signal::KILL);
        }
        sleep(POLL);
    }
}

/// What `status` shows of the cluster's processes, the largest first.
pub fn shown(place: &Place) -> anyhow::Result<Vec<Shown>> {
    let mut shown: Vec<Shown> =
        of_cluster(place)?.into_iter().filter_map(|process| show(process.pid)).collect();
    shown.sort_by_key(|process| std::cmp::Reverse(process.pss_kib));
    Ok(shown)
}

/// Numbers and commands, for an error.
pub fn list(processes: &[Process]) -> String {
    let words = processes.iter().map(|process| {
        let command = command_of(process.pid).unwrap_or_default();
        format!("{} ({command})", process.pid)
    });
    words.collect::<Vec<_>>().join(", ")
}

/// The child of a process. It has one from shortly after its start.
pub fn child_of(parent: i32) -> Option<i32> {
    let children = fs::read_dir("/proc").ok()?.filter_map(|entry| {
        let pid = entry.ok()?.file_name().to_str()?.parse::<i32>().ok()?;
        (stat_field(pid, 4)? == u64::try_from(parent).ok()?).then_some(pid)
    });
    children.min()
}

fn show(pid: i32) -> Option<Shown> {
    let folder = Path::new("/proc").join(pid.to_string());
    let status = fs::read_to_string(folder.join("status")).ok()?;
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    let inner_pid = numbers.split_whitespace().next_back()?.parse().ok()?;
    let memory = fs::read_to_string(folder.join("smaps_rollup")).unwrap_or_default();
    let pss = memory.lines().find_map(|line| line.strip_prefix("Pss:"));
    let pss_kib = pss.and_then(|pss| pss.split_whitespace().next()?.parse().ok());
    Some(Shown { pid, inner_pid, command: command_of(pid)?, pss_kib: pss_kib.unwrap_or(0) })
}

fn command_of(pid: i32) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut words = bytes.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let program = words.next()?;
    let name = program.rsplit('/').next().unwrap_or_default().to_owned();
    // One binary holds all of Kubernetes.
    Some(if name == "kube" { words.next().unwrap_or_default().into_owned() } else { name })
}

fn start_of(pid: i32) -> Option<u64> {
    // A zombie has ended; its parent just has not heard of it.
    (state_of(pid)? != 'Z').then(|| stat_field(pid, 22)).flatten()
}

fn state_of(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// A numeric field of `/proc/PID/stat`, counted from 1. The second is the command in
/// brackets and may hold anything, so fields are counted from its last bracket.
fn stat_field(pid: i32, field: usize) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let rest = stat.rsplit_once(") ")?.1;
    rest.split(' ').nth(field - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_itself_and_no_earlier_one() -> anyhow::Result<()> {
        let pid = i32::try_from(std::process::id())?;
        let this = Process::of(pid)?;
        assert!(this.is_alive());
        assert!(!Process { start: this.start - 1, ..this }.is_alive());
        Ok(())
    }
}
