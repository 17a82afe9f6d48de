//! What happens when something goes wrong: nothing is left, and the message says why.

use std::collections::BTreeSet;
use std::fs;

use containerd_shim::protos::api::{CreateTaskRequest, DeleteResponse};
use containerd_shim::protos::protobuf::Message as _;
use serde_json::json;

use crate::cases::group;
use crate::runner::Case;
use crate::shim::{Containerd, alive, tmpfs, until};
use crate::spec;

pub const ALL: &[Case] = &[
    ("a worker that can't get ready fails Create and leaves nothing", not_ready),
    ("a worker that can't start fails Start", not_started),
    ("what can't be honoured fails Create by name", refused),
    ("the kernel's OOM killer is told before the exit", oom),
    ("a container that ignores SIGTERM dies of SIGKILL", stubborn),
    ("a shim that is killed takes its containers along, and delete cleans up", shim_killed),
    ("a group that can't be made fails Create", no_group),
    ("a group's path may be as long as the kernel takes, and not longer", long_path),
    ("a user namespace is refused by name", user_namespace),
    ("two hundred containers leave nothing behind", cycles),
];

/// Cycles of create and delete in one shim.
const CYCLES: usize = 200;

fn mounts_of(containerd: &Containerd) -> usize {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.matches(&*containerd.folder.path().to_string_lossy()).count()
}

fn not_ready() {
    let containerd = Containerd::new();
    let shim = containerd.start("n", &spec::wasm("n", &["fail-ready"]));
    let request = CreateTaskRequest { id: "n".into(), rootfs: vec![tmpfs()], ..Default::default() };
    let error = shim.create_with(request).unwrap_err();
    assert!(error.contains("stand-in: no backend of this name"), "{error}");
    assert!(shim.status("n").is_err());
    assert!(!group("memory", "n").exists());
    assert_eq!(mounts_of(&containerd), 0);
    assert!(containerd.events("n", 0).is_empty());
    shim.shutdown();
}

fn not_started() {
    let containerd = Containerd::new();
    let shim = containerd.start("n", &spec::wasm("n", &["fail-start"]));
    shim.create("n").unwrap();
    let error = shim.run("n").unwrap_err();
    assert!(error.contains("the port is taken"), "{error}");
    shim.delete("n").unwrap();
    let events = containerd.events("n", 3);
    assert!(events.iter().all(|e| e != "start"), "{events:?}");
    shim.shutdown();
}

fn refused() {
    let containerd = Containerd::new();
    let mut spec = spec::wasm("r", &["serve"]);
    spec["process"]["capabilities"] = json!({"bounding": ["CAP_SYS_ADMIN"]});
    spec["annotations"]["wick.dev/port"] = json!("80");
    let shim = containerd.start("r", &spec);
    let error = shim.create("r").unwrap_err();
    assert!(error.contains("process.capabilities") && error.contains("wick.dev/port"), "{error}");
    assert!(!group("memory", "r").exists());
    shim.shutdown();
}

fn oom() {
    let containerd = Containerd::new();
    let mut spec = spec::wasm("m", &["eat"]);
    spec["linux"]["resources"]["memory"] = json!({"limit": 33_554_432, "swap": 33_554_432});
    let shim = containerd.start("m", &spec);
    shim.create("m").unwrap();
    // It may be killed before it has said that it started.
    let _ = shim.run("m");
    assert_eq!(shim.wait("m"), 137);
    shim.delete("m").unwrap();
    let events = containerd.events("m", 5);
    let events: Vec<_> = events.iter().map(String::as_str).filter(|e| *e != "start").collect();
    assert_eq!(events, ["create", "oom", "exit m 137", "delete 137"]);
    shim.shutdown();
}

fn stubborn() {
    let containerd = Containerd::new();
    let shim = containerd.start("t", &spec::wasm("t", &["stubborn"]));
    let pid = shim.create("t").unwrap();
    shim.run("t").unwrap();
    shim.kill("t", 15).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(alive(pid));
    shim.kill("t", 9).unwrap();
    assert_eq!(shim.wait("t"), 137);
    shim.delete("t").unwrap();
    shim.shutdown();
}

fn shim_killed() {
    let containerd = Containerd::new();
    let shim = containerd.start("k", &spec::sandbox("k", "pod"));
    let pause = shim.create("k").unwrap();
    shim.run("k").unwrap();
    let shim_pid = shim.shim_pid("k");
    spec::bundle(&containerd.bundle("w"), &spec::in_pod("w", "k", pause, &["stubborn"]));
    let request = CreateTaskRequest { id: "w".into(), rootfs: vec![tmpfs()], ..Default::default() };
    let worker = shim.create_with(request).unwrap();
    shim.run("w").unwrap();
    std::process::Command::new("kill").args(["-9", &shim_pid.to_string()]).status().unwrap();
    until("everything is dead", || !alive(worker) && !alive(pause) && !alive(shim_pid));
    assert!(group("memory", "w").exists() && mounts_of(&containerd) > 0);
    let named = fs::read_to_string(containerd.bundle("w").join("shim-binary-path")).unwrap();
    assert!(named.ends_with("containerd-shim-wick-v1"), "{named}");
    // containerd asks for the sandbox alone, and the rest of its pod goes with it. It may have
    // removed the others' bundles and the sandbox's own notes by then.
    fs::remove_file(containerd.bundle("k").join("address")).unwrap();
    fs::remove_file(containerd.bundle("w").join("config.json")).unwrap();
    for id in ["k", "w"] {
        let output = containerd.action(id, "delete");
        assert!(output.status.success());
        let response = DeleteResponse::parse_from_bytes(&output.stdout).unwrap();
        assert_eq!(response.exit_status, 137);
        assert!(!group("memory", "w").exists() && !group("memory", "k").exists());
        assert_eq!(mounts_of(&containerd), 0);
        // A second time finds nothing to do.
        assert!(containerd.action(id, "delete").status.success());
    }
    assert_eq!(mounts_of(&containerd), 0);
    // The pod can be started again at once.
    fs::remove_dir_all(containerd.bundle("w")).unwrap();
    let again = containerd.start("k", &spec::sandbox("k", "pod"));
    again.create("k").unwrap();
    again.run("k").unwrap();
    again.delete("k").unwrap();
    again.shutdown();
}

fn no_group() {
    let containerd = Containerd::new();
    let mut spec = spec::wasm("g", &["serve"]);
    spec["linux"]["resources"]["cpu"] = json!({"cpus": "4000"});
    let shim = containerd.start("g", &spec);
    let request = CreateTaskRequest { id: "g".into(), rootfs: vec![tmpfs()], ..Default::default() };
    let error = shim.create_with(request).unwrap_err();
    assert!(error.contains("cpuset.cpus"), "{error}");
    assert!(!group("memory", "g").exists());
    assert_eq!(mounts_of(&containerd), 0);
    shim.shutdown();
}

fn long_path() {
    let containerd = Containerd::new();
    // The longest that fits, so that the test sees the kernel's own limits from below.
    let (name, parts) = ("n".repeat(255), 15);
    let root = spec::group_root();
    let path = vec![name.as_str(); parts].join("/");
    let path = path[..3800 - root.len()].trim_end_matches('/');
    let mut spec = spec::wasm("l", &["serve"]);
    spec["linux"]["cgroupsPath"] = json!(format!("{root}/{path}"));
    let shim = containerd.start("l", &spec);
    let pid = shim.create("l").unwrap();
    shim.run("l").unwrap();
    let shown = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(shown.contains(path), "{shown}");
    shim.delete("l").unwrap();
    // What lies above it was not this container's to remove.
    for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let mut folder = hierarchy.path().join(&root[1..]);
        folder.push(path);
        assert!(!folder.exists(), "{}", folder.display());
        while folder.pop() && folder != hierarchy.path() {
            let _ = fs::remove_dir(&folder);
        }
    }
    for (id, path) in [("m", "n".repeat(256)), ("o", vec![name.as_str(); 16].join("/"))] {
        let mut spec = spec::wasm(id, &["serve"]);
        spec["linux"]["cgroupsPath"] = json!(format!("{root}/{path}"));
        spec::bundle(&containerd.bundle(id), &spec);
        let error = shim.create(id).unwrap_err();
        assert!(error.contains("linux.cgroupsPath") && error.contains("longer"), "{error}");
        assert!(!group("memory", &path[..200.min(path.len())]).exists());
    }
    shim.shutdown();
}

fn user_namespace() {
    let containerd = Containerd::new();
    let mut spec = spec::sandbox("u", "pod");
    let ids = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    spec["linux"]["uidMappings"] = ids.clone();
    spec["linux"]["gidMappings"] = ids;
    spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    let shim = containerd.start("u", &spec);
    let error = shim.create("u").unwrap_err();
    for words in ["linux.uidMappings", "linux.namespaces.user", "`hostUsers: false`"] {
        assert!(error.contains(words), "{words}: {error}");
    }
    assert!(!group("memory", "u").exists());
    shim.shutdown();
}

fn cycles() {
    let containerd = Containerd::new();
    let shim = containerd.start("keep", &spec::wasm("keep", &["serve"]));
    shim.create("keep").unwrap();
    let shim_pid = shim.shim_pid("keep");
    let open = || fs::read_dir(format!("/proc/{shim_pid}/fd")).unwrap().count();
    let cycle = |at: usize| {
        let id = format!("x{at}");
        let args: &[&str] = if at.is_multiple_of(2) { &["exit", "1"] } else { &["serve"] };
        spec::bundle(&containerd.bundle(&id), &spec::wasm(&id, args));
        let request =
            CreateTaskRequest { id: id.clone(), rootfs: vec![tmpfs()], ..Default::default() };
        let pid = shim.create_with(request).unwrap();
        shim.run(&id).unwrap();
        shim.delete(&id).unwrap();
        assert!(!group("memory", &id).exists() && !alive(pid));
    };
    // The first ones start threads.
    (0..10).for_each(cycle);
    let before = open();
    (10..CYCLES).for_each(cycle);
    until("no descriptor is left", || open() <= before);
    assert_eq!(mounts_of(&containerd), 0);
    let children = fs::read_to_string(format!("/proc/{shim_pid}/task/{shim_pid}/children"));
    let children = children.unwrap_or_default().split_whitespace().count();
    assert!(children <= 1, "{children} children, zombies included");
    let groups: BTreeSet<_> = fs::read_dir(group("memory", "keep").parent().unwrap())
        .unwrap()
        .flatten()
        .filter(|e| e.path().is_dir())
        .map(|e| e.file_name())
        .collect();
    assert_eq!(groups.into_iter().collect::<Vec<_>>(), ["keep"]);
    shim.delete("keep").unwrap();
    shim.shutdown();
}
