//! Images that are made to break out.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use wick_sandbox::order::Device;

use crate::support::{Case, root_or_skip};

/// The names that a folder of the node has, to see that none is added.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn links_in_an_image_redirect_no_mount_to_the_node() {
    if !root_or_skip() {
        return;
    }
    let mut case = Case::new();
    let outside = case.volume("outside");
    let before = names(&outside);
    let third = case.volume("third");
    symlink(&outside, case.rootfs("dev")).unwrap();
    symlink(format!("../../../../../../../..{}", third.display()), case.rootfs("sys")).unwrap();
    symlink("../..", case.rootfs("app/up")).unwrap();
    let another = case.volume("another");
    symlink(&another, case.rootfs("run")).unwrap();
    symlink(another.join("inside"), case.rootfs("app/link")).unwrap();
    let volume = case.volume("volume");
    case.bind(&volume, "/app/up/data", 0);
    case.bind(&volume.join("inside"), "/app/link", 0);
    let answers = case.run(&["read:/app/up/data/inside", "read:/app/link", "read:/dev/null"]);
    assert_eq!(answers.ok("read:/app/up/data/inside"), "of volume");
    assert_eq!(answers.ok("read:/app/link"), "of volume");
    assert_eq!(answers.ok("read:/dev/null"), "");
    // Everything was made inside the image, at the same path as on the node.
    assert_eq!(names(&outside), before);
    assert_eq!(fs::read_to_string(outside.join("inside")).unwrap(), "of outside");
    assert_eq!((names(&another), names(&third)), (before.clone(), before));
    assert_eq!(fs::read_to_string(another.join("inside")).unwrap(), "of another");
    assert!(case.rootfs("data").is_dir());
}

#[test]
fn a_link_to_nothing_is_made_inside_the_image() {
    if !root_or_skip() {
        return;
    }
    let mut case = Case::new();
    fs::create_dir(case.rootfs("etc")).unwrap();
    symlink("../run/resolve/stub.conf", case.rootfs("etc/resolv.conf")).unwrap();
    symlink("/not/on/the/node", case.rootfs("data")).unwrap();
    let volume = case.volume("volume");
    case.bind(&volume.join("inside"), "/etc/resolv.conf", libc::MS_RDONLY);
    case.bind(&volume, "/data/deep", 0);
    let answers = case.run(&["read:/etc/resolv.conf", "read:/not/on/the/node/deep/inside"]);
    assert_eq!(answers.ok("read:/etc/resolv.conf"), "of volume");
    assert_eq!(answers.ok("read:/not/on/the/node/deep/inside"), "of volume");
    assert!(!Path::new("/not").exists());
}

#[test]
fn links_that_lead_round_in_circles_end_in_an_error() {
    if !root_or_skip() {
        return;
    }
    let mut case = Case::new();
    symlink("b", case.rootfs("a")).unwrap();
    symlink("a", case.rootfs("b")).unwrap();
    let volume = case.volume("volume");
    case.bind(&volume, "/a/data", 0);
    let refusal = case.refusal();
    assert!(refusal.contains("make the mount point /a/data"), "{refusal}");
}

#[test]
fn a_proc_that_is_the_root_itself_is_not_mounted() {
    if !root_or_skip() {
        return;
    }
    let case = Case::new();
    symlink("/", case.rootfs("proc")).unwrap();
    let refusal = case.refusal();
    assert!(refusal.contains("/proc is refused"), "{refusal}");
}

#[test]
fn a_proc_that_is_a_link_does_not_show_the_node_s_processes() {
    if !root_or_skip() {
        return;
    }
    let case = Case::new();
    fs::create_dir(case.rootfs("elsewhere")).unwrap();
    symlink("/elsewhere", case.rootfs("proc")).unwrap();
    let answers = case.run(&["read:/proc/self/cgroup", "list:/proc/1/task"]);
    answers.ok("read:/proc/self/cgroup");
    // The probe is the first process there is.
    assert_eq!(answers.ok("list:/proc/1/task").split(' ').count(), 3);
}

#[test]
fn no_device_is_made_in_a_volume_of_the_pod() {
    if !root_or_skip() {
        return;
    }
    let mut case = Case::new();
    let volume = case.volume("volume");
    case.bind(&volume, "/dev/pod", 0);
    let path = "/dev/pod/disk".into();
    let device = Device { path, kind: 'b', major: 8, minor: 0, mode: 0o666, uid: 0, gid: 0 };
    case.order.devices = vec![device];
    let refusal = case.refusal();
    assert!(refusal.contains("/dev/pod/disk"), "{refusal}");
    assert_eq!(names(&volume), ["inside"]);
}

#[test]
fn nothing_in_the_image_is_run_or_is_a_device() {
    if !root_or_skip() {
        return;
    }
    let mut case = Case::new();
    // A device node that came with the image.
    let number = rustix::fs::makedev(1, 5);
    let mode = rustix::fs::Mode::from_raw_mode(0o666);
    let kind = rustix::fs::FileType::CharacterDevice;
    let made = rustix::fs::mknodat(rustix::fs::CWD, case.rootfs("zero"), kind, mode, number);
    fs::copy("/bin/true", case.rootfs("app/true")).unwrap();
    case.order.user.uid = 0;
    let answers = case.run(&["read:/zero", "exec:/app/true", "run:/app/true"]);
    if made.is_ok() {
        answers.error("read:/zero", &[libc::EACCES]);
    }
    answers.error("exec:/app/true", &[libc::EPERM]);
    answers.error("run:/app/true", &[libc::EPERM]);
}
