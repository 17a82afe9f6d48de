//! The pod's pause process: the same executable, called with `pause`. It holds the pod's
//! namespaces open, reaps what is orphaned when it is the first process of a shared pid
//! namespace, and ends at SIGTERM. It sees an empty file system and has no rights, because in
//! a pod that shares processes every container sees it. A container that only keeps its image on
//! the node is such a process, too.
#![allow(unsafe_code, reason = "prctl, capset and waiting for a signal have no safe binding")]

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};
use rustix::process::{WaitOptions, pivot_root, wait};
use serde::{Deserialize, Serialize};
use wick_sandbox::Channel;
use wick_sandbox::channel::WORKER_FD;
use wick_sandbox::order::{Go, Report, VERSION};

/// The first argument that makes the shim a pause process.
pub const ARGUMENT: &str = "pause";

/// The highest capability that a kernel may know.
const LAST_CAPABILITY: u64 = 63;

/// What the pause process is told.
#[derive(Debug, Serialize, Deserialize)]
pub struct PauseOrder {
    pub version: u32,
    /// A folder to build the empty root on.
    pub rootfs: PathBuf,
    pub hostname: Option<String>,
    pub sysctl: BTreeMap<String, String>,
    pub uid: u32,
    pub gid: u32,
}

/// Be the pause process, until a signal ends it.
pub fn main() -> u8 {
    let Ok(stream) = wick_sandbox::adopt(WORKER_FD) else { return 1 };
    let mut channel = Channel::new(stream);
    // Blocked from the beginning, so that a signal between two steps waits for `hold`.
    let signals = block_signals();
    let done = channel.receive(None).map_err(io::Error::other).and_then(|o| lock_down(&o));
    if let Err(error) = done {
        let failed = Report::Failed { code: "pause".to_owned(), message: error.to_string() };
        // Nobody is left to tell when the shim is gone.
        let _ = channel.send(&failed);
        return 1;
    }
    if channel.send(&Report::Ready { phases: Vec::new() }).is_err()
        || channel.receive::<Go>(None).is_err()
        || channel.send(&Report::Started { addr: None, phases: Vec::new() }).is_err()
    {
        return 1;
    }
    hold(&signals)
}

fn lock_down(order: &PauseOrder) -> io::Result<()> {
    if order.version != VERSION {
        return Err(io::Error::other(format!("an order of version {}", order.version)));
    }
    if let Some(hostname) = &order.hostname {
        rustix::system::sethostname(hostname.as_bytes()).map_err(named("set the host name"))?;
    }
    for (key, value) in &order.sysctl {
        let file = sysctl_file(key).ok_or_else(|| io::Error::other(format!("sysctl `{key}`")))?;
        fs::write(&file, value).map_err(named(&format!("set the sysctl `{key}`")))?;
    }
    empty_root(&order.rootfs).map_err(named("make an empty root"))?;
    drop_rights(order.uid, order.gid)
}

fn named<E: Into<io::Error>>(what: &str) -> impl Fn(E) -> io::Error {
    move |error| {
        let error = error.into();
        io::Error::new(error.kind(), format!("{what}: {error}"))
    }
}

/// `net.ipv4.ip_forward` is a file; so is `net/ipv4/conf/eth0.1/forwarding`, whose dots are
/// part of a name.
fn sysctl_file(key: &str) -> Option<PathBuf> {
    let path = if key.contains('/') { key.to_owned() } else { key.replace('.', "/") };
    let clean = !path.is_empty() && path.split('/').all(|part| !part.is_empty() && part != "..");
    clean.then(|| Path::new("/proc/sys").join(path))
}

fn empty_root(folder: &Path) -> io::Result<()> {
    let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    mount_change("/", private)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("tmpfs", folder, "tmpfs", flags, Some(c"mode=0555,size=4k,nr_inodes=2"))?;
    rustix::process::chdir(folder)?;
    // The old root is stacked on the new one, and taken off.
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    rustix::mount::mount_remount("/", flags | MountFlags::RDONLY, c"")?;
    Ok(())
}

/// Nobody, without capabilities, unable to get any, and not to be traced.
fn drop_rights(uid: u32, gid: u32) -> io::Result<()> {
    let check = |what: &str, result: libc::c_long| {
        if result < 0 { Err(named(what)(io::Error::last_os_error())) } else { Ok(()) }
    };
    // SAFETY: numbers and null pointers alone; the capability header and data are the kernel's
    // version 3 and outlive the call. This process has one thread.
    unsafe {
        for capability in 0..=LAST_CAPABILITY {
            // An unknown capability is an error that means nothing.
            libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0);
        }
        check("leave all groups", libc::setgroups(0, std::ptr::null()).into())?;
        check("set the group", libc::setresgid(gid, gid, gid).into())?;
        check("set the user", libc::setresuid(uid, uid, uid).into())?;
        let header: [u32; 2] = [0x2008_0522, 0];
        let data = [0u32; 6];
        check(
            "drop capabilities",
            libc::syscall(libc::SYS_capset, &raw const header, &raw const data),
        )?;
        check("forbid new rights", libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).into())?;
        check("forbid tracing", libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0).into())?;
        // Changing the user has undone it.
        check(
            "die with the shim",
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0).into(),
        )?;
    }
    Ok(())
}

fn block_signals() -> libc::sigset_t {
    // SAFETY: `sigemptyset` initialises the set before it is used.
    unsafe {
        let mut set = std::mem::MaybeUninit::uninit();
        libc::sigemptyset(set.as_mut_ptr());
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGCHLD] {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
        set.assume_init()
    }
}

fn hold(signals: &libc::sigset_t) -> u8 {
    loop {
        let mut signal = 0;
        // SAFETY: an initialised set and a number that outlive the call.
        let result = unsafe { libc::sigwait(signals, &raw mut signal) };
        match (result, signal) {
            (0, libc::SIGCHLD) => while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {},
            (0, _) => return 0,
            // Only an invalid set makes it fail.
            _ => return 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sysctl_is_a_file_below_proc_sys() {
        let file = |key| sysctl_file(key).map(|p| p.display().to_string());
        assert_eq!(file("net.ipv4.ip_forward").unwrap(), "/proc/sys/net/ipv4/ip_forward");
        assert_eq!(file("net/ipv4/conf/a.1/x").unwrap(), "/proc/sys/net/ipv4/conf/a.1/x");
        assert_eq!(file("a/../../etc/passwd"), None);
        assert_eq!(file(""), None);
    }
}
