//! A group of v2 for real, in the hierarchy without controllers that a hybrid node mounts.

use std::ffi::CString;
use std::process::Command;

use oci_spec::runtime::LinuxResources;

use super::*;
use crate::clone::{Birth, Child, Cloner};
use crate::plan::Namespaces;
use crate::stdio::Stdio;

const UNIFIED: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];

/// A group of its own for one test, or none where the node has no v2 or the test no rights.
fn group(name: &str) -> Option<Cgroup> {
    let is_v2 = |root: &&str| Path::new(root).join("cgroup.controllers").exists();
    let root = UNIFIED.into_iter().find(is_v2);
    let root = root.filter(|_| rustix::process::geteuid().is_root());
    assert!(root.is_some() || std::env::var_os("CI").is_none(), "no root or no v2, and this is CI");
    let path = CgroupPath::parse(&format!("/wick-unit-{}-{name}", std::process::id())).unwrap();
    root.map(|root| Cgroup::new(Arc::new(Layout::V2(root.into())), path))
}

fn clone_into(group: &Cgroup, script: &str) -> Child {
    let arg = |word: &str| CString::new(word).unwrap();
    let Stdio { ends, .. } = Stdio::null().unwrap();
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    // The cloner ends with its last door, and its children with it.
    let cloner: &'static Cloner = Box::leak(Box::new(Cloner::start().unwrap()));
    let child = cloner
        .clone_process(Birth {
            executable: File::open("/bin/sh").unwrap().into(),
            args: vec![arg("sh"), arg("-c"), arg(script)],
            env: vec![arg("PATH=/bin:/usr/bin")],
            stdio: ends,
            channel: theirs.into(),
            entry: group.entry().unwrap(),
            namespaces: Namespaces::default(),
        })
        .unwrap();
    drop(ours);
    child
}

fn reap(child: &Child) -> i32 {
    let id = rustix::process::WaitId::PidFd(child.pidfd.as_fd());
    let status = rustix::process::waitid(id, rustix::process::WaitIdOptions::EXITED);
    let status = status.unwrap().unwrap();
    status.exit_status().unwrap_or_else(|| 128 + status.terminating_signal().unwrap())
}

#[test]
fn a_process_is_cloned_into_its_group_frozen_and_killed() {
    let Some(group) = group("life") else { return };
    group.create(&Limits::for_update(LinuxResources::default())).unwrap();
    let child = clone_into(&group, "sleep 100 & sleep 100");
    assert!(group.processes().contains(&child.pid));
    let own = fs::read_to_string(format!("/proc/{}/cgroup", child.pid)).unwrap();
    assert!(own.contains("wick-unit"), "{own}");
    group.freeze().unwrap();
    let events = group.any_folder().unwrap().join("cgroup.events");
    let frozen = || fs::read_to_string(&events).unwrap().contains("frozen 1");
    assert!((0..500).any(|_| frozen() || {
        std::thread::sleep(KILL_PAUSE);
        false
    }));
    group.kill();
    assert_eq!(reap(&child), 137, "also while it is frozen");
    group.remove().unwrap();
    assert!(!group.exists());
}

#[test]
fn a_device_outside_the_rules_cannot_be_opened() {
    let Some(group) = group("devices") else { return };
    group.create(&Limits::at_creation(None)).unwrap();
    let open = |device: &str| reap(&clone_into(&group, &format!("exec 5<{device}")));
    assert_eq!(open("/dev/null"), 0);
    assert_eq!(open("/dev/zero"), 0);
    assert_ne!(open("/dev/kmsg"), 0);
    let here = Command::new("sh").args(["-c", "exec 5</dev/kmsg"]).status().unwrap();
    assert!(here.success(), "it is the group that forbids it");
    group.kill();
    group.remove().unwrap();
}
