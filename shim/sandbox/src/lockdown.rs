//! The lockdown: every step, in its order, timed.
//!
//! ```text
//!  one thread?  session, keys ─▶ AppArmor's file ─▶ cut off mounts ─▶ order's mounts
//!    ─▶ devices ─▶ the worker's own folder ─▶ hide, protect ─▶ image read-only
//!    ─▶ pivot_root ─▶ limits ─▶ AppArmor ─▶ user, groups, no capabilities
//!    ─▶ no new privileges ─▶ system calls
//! ```
//!
//! What is needed of the node (its `/proc`, its devices) is opened before the root changes;
//! what needs rights comes before they are given up.

use std::time::Instant;

use crate::apparmor::Profile;
use crate::error::{LockdownError, Step as _};
use crate::order::{Order, Phase, Task};
use crate::root::{Kind, Root};
use crate::seccomp::{Filter, Permissions};
use crate::{devices, identity, masks, mounts};

/// Numbers of the first mount namespace: fixed since Linux 6.18, and before it the first that
/// there were.
const FIRST_NAMESPACES: [u64; 3] = [0xefff_fff8, 0xf000_0000, 0xf000_0001];

/// Measures what it is told the end of.
struct Stopwatch {
    last: Instant,
    phases: Vec<Phase>,
}

/// A file that describes a driver of the node's, for a library that looks for one by files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Driver {
    /// The file's name below [`DRIVERS`](crate::DRIVERS).
    pub name: String,
    pub text: String,
}

/// Lock this process down as the order says, for good. It must have one thread, and be in a
/// mount namespace of its own, which is changed. It finds `drivers` afterwards.
///
/// # Errors
/// See [`LockdownError`]. The process is then neither free nor safe: it must end.
pub fn lock_down(order: &Order, drivers: &[Driver]) -> Result<Vec<Phase>, LockdownError> {
    let threads = identity::threads().step(|| "count the threads".to_owned())?;
    if threads != 1 {
        let why = format!("it has {threads} threads, and rights are given up by one only");
        return Err(LockdownError::refused("to lock this process down", why));
    }
    if in_the_node_s_mounts() {
        let why = "it is in the mount namespace of the node, whose file systems it would take away";
        return Err(LockdownError::refused("to lock this process down", why));
    }
    let mut watch = Stopwatch { last: Instant::now(), phases: Vec::new() };
    let filter = Filter::new(permissions(order))?;
    identity::new_session()?;
    let profile = Profile::open(order.apparmor.as_deref())?;
    watch.lap("prepare");

    let root = Root::open(&order.rootfs, order.sealed)?;
    let mounted = mounts::mount_all(&root, order)?;
    watch.lap("mount");
    devices::make_all(mounted.dev.as_ref(), &order.devices)?;
    let writable = order.task == Task::Compile;
    let cache = order.cache.as_deref().map(|cache| (cache, writable));
    mounts::mount_own(&root, order.backends.as_deref(), cache, drivers)?;
    mounts::show_files(&root, order)?;
    watch.lap("own");
    masks::hide(&root, &order.masked_paths)?;
    masks::protect(&root, &order.readonly_paths)?;
    let cwd = root.made(&order.cwd, Kind::Folder)?;
    root.seal()?;
    watch.lap("mask");

    root.enter()?;
    rustix::process::fchdir(&cwd).step(|| format!("enter {}", order.cwd.display()))?;
    drop((cwd, mounted));
    watch.lap("pivot");

    identity::limit(&order.rlimits)?;
    if let Some(profile) = profile {
        profile.enter()?;
    }
    identity::become_user(&order.user)?;
    watch.lap("identity");
    filter.apply()?;
    watch.lap("seccomp");
    Ok(watch.phases)
}

/// Whether this process shares its mounts with the first process of the node, or of the
/// container that the shim itself is in. Its `/proc` is still the shim's.
fn in_the_node_s_mounts() -> bool {
    let number = |of: &str| Some(rustix::fs::stat(format!("/proc/{of}/ns/mnt")).ok()?.st_ino);
    number("self").is_some_and(|own| is_the_node_s(own, number("1")))
}

/// `first` is the first process's namespace, which not everybody may look at.
fn is_the_node_s(own: u64, first: Option<u64>) -> bool {
    first == Some(own) || FIRST_NAMESPACES.contains(&own)
}

fn permissions(order: &Order) -> Permissions {
    let runs = order.task == Task::Run;
    Permissions {
        network: !order.settings.network.is_empty() && runs,
        // What a driver is asked by the calls of `ioctl` is its own affair.
        devices: runs && order.devices.iter().any(devices::has_driver),
    }
}

// === impl Stopwatch ===

impl Stopwatch {
    fn lap(&mut self, name: &str) {
        self.phases.push(Phase::since(name, self.last));
        self.last = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_s_mounts_are_known_by_their_number_or_by_the_first_process() {
        assert!(is_the_node_s(4_026_531_832, None));
        assert!(is_the_node_s(4_026_532_500, Some(4_026_532_500)));
        assert!(!is_the_node_s(4_026_532_500, Some(4_026_531_840)));
        assert!(!is_the_node_s(4_026_532_500, None));
    }
}
