//! Containers that runc runs.

use std::fs;
use std::path::PathBuf;

use containerd_shim::protos::api::{self, CreateTaskRequest, Status};
use containerd_shim::protos::protobuf::well_known_types::any::Any;
use serde_json::json;

use crate::cases::group;
use crate::runner::Case;
use crate::shim::{Containerd, NAMESPACE, Shim, alive, context, tmpfs, until};
use crate::{spec, tools};

pub const ALL: &[Case] = &[
    ("an ordinary container is run by runc from create to delete", lives),
    ("an ordinary container takes realtime signals too", realtime),
    ("a process is added to an ordinary container", added),
    ("a process with a terminal is added to an ordinary container", terminal),
    ("runc's own words reach containerd", words),
    ("an ordinary container of a killed shim is cleaned up", killed),
    ("a side-car runs in the pod of a package", side_car),
    ("a side-car of a killed shim is cleaned up though its bundle is gone", side_car_of_killed),
    ("the next shim of a pod cleans up behind one that was killed", next_shim),
];

fn create(shim: &Shim<'_>, id: &str, stdout: Option<&PathBuf>) -> Result<u32, String> {
    let stdout = stdout.map(|f| format!("file://{}", f.display())).unwrap_or_default();
    let rootfs = vec![tmpfs()];
    shim.create_with(CreateTaskRequest { id: id.into(), rootfs, stdout, ..Default::default() })
}

fn lives() {
    if !tools::has("runc") {
        return;
    }
    let containerd = Containerd::new();
    let script = "echo hello; trap 'exit 7' TERM; while :; do sleep 0.05; done";
    let shim = containerd.start("a", &spec::ordinary("a", script));
    let file = containerd.folder.path().join("out");
    let pid = create(&shim, "a", Some(&file)).unwrap();
    assert_eq!(shim.run("a").unwrap(), pid);
    until("it speaks", || fs::read_to_string(&file).is_ok_and(|t| t == "hello\n"));
    shim.kill("a", 15).unwrap();
    assert_eq!(shim.wait("a"), 7);
    assert_eq!(shim.delete("a").unwrap(), 7);
    let events = containerd.events("a", 4);
    assert_eq!(events, ["create", "start", "exit a 7", "delete 7"]);
    assert!(!group("memory", "a").exists());
    shim.shutdown();
}

fn realtime() {
    if !tools::has("runc") {
        return;
    }
    let containerd = Containerd::new();
    let script = "trap 'exit 8' RTMIN+3; while :; do sleep 0.05; done";
    let mut spec = spec::ordinary("a", script);
    spec["process"]["args"] = json!(["/bin/bash", "-c", script]);
    let shim = containerd.start("a", &spec);
    create(&shim, "a", None).unwrap();
    shim.run("a").unwrap();
    // Before its trap is set the first process of a pid namespace ignores it.
    std::thread::sleep(std::time::Duration::from_millis(200));
    shim.kill("a", 37).unwrap();
    assert_eq!(shim.wait("a"), 8);
    shim.delete("a").unwrap();
    shim.shutdown();
}

fn exec(shim: &Shim<'_>, id: &str, script: &str, stdout: String, terminal: bool) {
    let process = json!({
        "args": ["/bin/sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"],
        "user": {"uid": 0, "gid": 0}, "terminal": terminal
    });
    let spec = Any { value: process.to_string().into_bytes(), ..Default::default() };
    let request = api::ExecProcessRequest {
        id: "a".into(),
        exec_id: id.into(),
        stdout,
        terminal,
        spec: Some(spec).into(),
        ..Default::default()
    };
    shim.wait_for(shim.task.exec(context(), &request)).unwrap();
    let request = api::StartRequest { id: "a".into(), exec_id: id.into(), ..Default::default() };
    shim.wait_for(shim.task.start(context(), &request)).unwrap();
}

fn finish(shim: &Shim<'_>, id: &str) -> u32 {
    let request = api::WaitRequest { id: "a".into(), exec_id: id.into(), ..Default::default() };
    let code = shim.wait_for(shim.task.wait(context(), &request)).unwrap().exit_status;
    let request = api::DeleteRequest { id: "a".into(), exec_id: id.into(), ..Default::default() };
    let deleted = shim.wait_for(shim.task.delete(context(), &request)).unwrap();
    assert_eq!(deleted.exit_status, code);
    code
}

fn added() {
    if !tools::has("runc") {
        return;
    }
    let containerd = Containerd::new();
    let shim = containerd.start("a", &spec::ordinary("a", "sleep 100"));
    create(&shim, "a", None).unwrap();
    shim.run("a").unwrap();
    let file = containerd.folder.path().join("out");
    exec(&shim, "x", "echo from exec; exit 5", format!("file://{}", file.display()), false);
    assert_eq!(finish(&shim, "x"), 5);
    assert_eq!(fs::read_to_string(&file).unwrap(), "from exec\n");
    exec(&shim, "y", "sleep 100", String::new(), false);
    let request =
        api::KillRequest { id: "a".into(), exec_id: "y".into(), signal: 9, ..Default::default() };
    shim.wait_for(shim.task.kill(context(), &request)).unwrap();
    assert_eq!(finish(&shim, "y"), 137);
    assert_eq!(shim.status("a").unwrap().status, Status::RUNNING.into());
    shim.delete("a").unwrap();
    shim.shutdown();
}

fn terminal() {
    if !tools::has("runc") {
        return;
    }
    let containerd = Containerd::new();
    let shim = containerd.start("a", &spec::ordinary("a", "sleep 100"));
    create(&shim, "a", None).unwrap();
    shim.run("a").unwrap();
    let file = containerd.folder.path().join("out");
    let stdout = format!("file://{}", file.display());
    exec(&shim, "t", "sleep 0.2; test -t 1 && stty size", stdout, true);
    let size = api::ResizePtyRequest {
        id: "a".into(),
        exec_id: "t".into(),
        width: 77,
        height: 33,
        ..Default::default()
    };
    shim.wait_for(shim.task.resize_pty(context(), &size)).unwrap();
    assert_eq!(finish(&shim, "t"), 0);
    until("the terminal's words", || fs::read_to_string(&file).is_ok_and(|t| t.contains("33 77")));
    shim.delete("a").unwrap();
    shim.shutdown();
}

fn words() {
    if !tools::has("runc") {
        return;
    }
    let containerd = Containerd::new();
    let mut spec = spec::ordinary("a", "");
    spec["process"]["args"] = json!(["/no/such/program"]);
    let shim = containerd.start("a", &spec);
    let error = create(&shim, "a", None).unwrap_err();
    assert!(error.contains("/no/such/program"), "{error}");
    assert!(!group("memory", "a").exists());
    assert!(shim.status("a").is_err());
    shim.shutdown();
}

fn killed() {
    if !tools::has("runc") {
        return;
    }
    let containerd = Containerd::new();
    let shim = containerd.start("a", &spec::ordinary("a", "sleep 100"));
    let pid = create(&shim, "a", None).unwrap();
    shim.run("a").unwrap();
    let shim_pid = shim.shim_pid("a");
    std::process::Command::new("kill").args(["-9", &shim_pid.to_string()]).status().unwrap();
    until("the shim is dead", || !alive(shim_pid));
    assert!(containerd.action("a", "delete").status.success());
    until("its container too", || !alive(pid));
    assert!(!group("memory", "a").exists());
    let again = containerd.start("a", &spec::ordinary("a", "exit 3"));
    create(&again, "a", None).unwrap();
    again.run("a").unwrap();
    assert_eq!(again.wait("a"), 3);
    again.delete("a").unwrap();
    again.shutdown();
}

fn side_car() {
    if !tools::has("runc") {
        return;
    }
    let containerd = Containerd::new();
    let shim = containerd.start("s", &spec::sandbox("s", "the-pod"));
    let pause = shim.create("s").unwrap();
    shim.run("s").unwrap();
    let mut spec = spec::ordinary("a", "cat /proc/sys/kernel/hostname");
    let pod = spec::in_pod("a", "s", pause, &[]);
    spec["annotations"] = pod["annotations"].clone();
    spec["linux"]["namespaces"] = pod["linux"]["namespaces"].clone();
    assert_eq!(containerd.start("a", &spec).address, shim.address);
    let file = containerd.folder.path().join("out");
    create(&shim, "a", Some(&file)).unwrap();
    shim.run("a").unwrap();
    assert_eq!(shim.wait("a"), 0);
    assert_eq!(fs::read_to_string(&file).unwrap(), "the-pod\n");
    shim.delete("a").unwrap();
    shim.delete("s").unwrap();
    shim.shutdown();
}

/// The process of a side-car in a pod whose shim has been killed.
fn pod_of_killed_shim(containerd: &Containerd) -> u32 {
    let shim = containerd.start("s", &spec::sandbox("s", "the-pod"));
    let pause = shim.create("s").unwrap();
    shim.run("s").unwrap();
    let mut spec = spec::ordinary("a", "sleep 100");
    spec["annotations"] = spec::in_pod("a", "s", pause, &[])["annotations"].clone();
    containerd.start("a", &spec);
    let pid = create(&shim, "a", None).unwrap();
    shim.run("a").unwrap();
    let shim_pid = shim.shim_pid("s");
    std::process::Command::new("kill").args(["-9", &shim_pid.to_string()]).status().unwrap();
    until("shim and pause are dead", || !alive(shim_pid) && !alive(pause));
    // runc's containers do not end with the shim: that is what the cleanup is for.
    assert!(alive(pid) && group("memory", "a").exists());
    pid
}

/// What containerd does with a bundle: its mounts first.
fn remove_bundle(containerd: &Containerd, id: &str) {
    let bundle = containerd.bundle(id);
    std::process::Command::new("umount").arg("-l").arg(bundle.join("rootfs")).status().unwrap();
    fs::remove_dir_all(bundle).unwrap();
}

fn is_gone(pid: u32) {
    until("the side-car is dead", || !alive(pid));
    for id in ["a", "s"] {
        assert!(!group("memory", id).exists() && !group("freezer", id).exists(), "{id}");
        let state = format!("/run/containerd/runc/{NAMESPACE}/{id}");
        assert!(!std::path::Path::new(&state).exists(), "runc still knows {id}");
    }
}

fn side_car_of_killed() {
    if !tools::has("runc") {
        return;
    }
    let containerd = Containerd::new();
    let pid = pod_of_killed_shim(&containerd);
    remove_bundle(&containerd, "a");
    assert!(containerd.action("s", "delete").status.success());
    is_gone(pid);
}

fn next_shim() {
    if !tools::has("runc") {
        return;
    }
    let containerd = Containerd::new();
    let pid = pod_of_killed_shim(&containerd);
    for id in ["a", "s"] {
        remove_bundle(&containerd, id);
    }
    // containerd itself died before it could ask for anything.
    let next = containerd.start("s", &spec::sandbox("s", "the-pod"));
    is_gone(pid);
    next.create("s").unwrap();
    next.delete("s").unwrap();
    next.shutdown();
}
