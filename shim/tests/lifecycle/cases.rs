//! What happens when everything goes well.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use containerd_shim::protos::api::{self, CreateTaskRequest, Status};
use containerd_shim::protos::cgroups::metrics::Metrics;
use containerd_shim::protos::protobuf::Message as _;
use containerd_shim::protos::protobuf::well_known_types::any::Any;
use serde_json::json;

use crate::runner::Case;
use crate::shim::{Containerd, alive, context, tmpfs, until};
use crate::spec;

pub const ALL: &[Case] = &[
    ("a container lives from create to delete", lives),
    ("an exit code is the program's or 128 and the signal", exit_codes),
    ("what is written arrives, the last partial line too", output),
    ("a pod shares its sandbox's namespaces and one shim", pod),
    ("a pod can share its processes", shared_processes),
    ("an image that is only to be there is kept by next to nothing", kept),
    ("a worker gets its channel, its streams and nothing else", inheritance),
    ("a paused container stands still", paused),
    ("new limits are set in place", updated),
    ("hooks run before the worker is told and after it has ended", hooks),
    ("a file takes the output", file_output),
    ("the shim says who it is", info),
];

/// The folder of a container's group in a hierarchy of v1.
pub fn group(controller: &str, id: &str) -> std::path::PathBuf {
    Path::new("/sys/fs/cgroup")
        .join(controller)
        .join(spec::group_root().trim_start_matches('/'))
        .join(id)
}

fn lives() {
    let containerd = Containerd::new();
    let shim = containerd.start("a", &spec::wasm("a", &["serve"]));
    let request = CreateTaskRequest { id: "a".into(), rootfs: vec![tmpfs()], ..Default::default() };
    let pid = shim.create_with(request).unwrap();
    assert_eq!(shim.status("a").unwrap().status, Status::CREATED.into());
    assert!(shim.create("a").unwrap_err().contains("exists"));
    assert_eq!(shim.run("a").unwrap(), pid);
    assert!(shim.run("a").unwrap_err().contains("can't start"));
    assert_eq!(shim.status("a").unwrap().status, Status::RUNNING.into());
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim(), "500");

    let request = api::PidsRequest { id: "a".into(), ..Default::default() };
    let pids = shim.wait_for(shim.task.pids(context(), &request)).unwrap();
    assert_eq!(pids.processes.iter().map(|p| p.pid).collect::<Vec<_>>(), [pid]);
    let request = api::StatsRequest { id: "a".into(), ..Default::default() };
    let stats = shim.wait_for(shim.task.stats(context(), &request)).unwrap().stats;
    assert_eq!(stats.type_url, "io.containerd.cgroups.v1.Metrics");
    let metrics = Metrics::parse_from_bytes(&stats.value).unwrap();
    assert!(metrics.memory.usage.usage > 0 && metrics.cpu.usage.total > 0, "{metrics:?}");
    assert_eq!(metrics.memory.usage.limit, 268_435_456);
    assert_eq!(metrics.pids.current, 1);

    let request =
        api::ExecProcessRequest { id: "a".into(), exec_id: "x".into(), ..Default::default() };
    let refused = shim.wait_for(shim.task.exec(context(), &request)).unwrap_err().to_string();
    assert!(refused.contains("no shell"), "{refused}");

    shim.kill("a", 15).unwrap();
    assert_eq!(shim.wait("a"), 0);
    assert_eq!(shim.status("a").unwrap().status, Status::STOPPED.into());
    assert!(shim.kill("a", 15).unwrap_err().contains("NOT_FOUND"), "as containerd expects");
    assert_eq!(shim.delete("a").unwrap(), 0);
    assert!(shim.status("a").is_err());
    let events = containerd.events("a", 4);
    assert_eq!(events, ["create", "start", "exit a 0", "delete 0"]);
    assert!(!group("memory", "a").exists());
    assert!(
        !fs::read_to_string("/proc/self/mountinfo")
            .unwrap()
            .contains(&*containerd.folder.path().to_string_lossy())
    );
    let log = containerd.log("a");
    assert!(log.contains("worker.lockdown=7us") && log.contains("clone="), "{log}");
    assert!(containerd.bundle("a").join("wick-phases.json").exists());
    let span = "span=start container=\"a\" phase=\"worker.lockdown\" at=\"1795530096000000\" \
                end=\"1795530096000007\"";
    assert!(log.contains(span), "{log}");

    shim.shutdown();
    let socket = shim.address.trim_start_matches("unix://").to_owned();
    until("the socket is gone", || !Path::new(&socket).exists());
}

fn exit_codes() {
    let containerd = Containerd::new();
    let cases: [(&[&str], Option<u32>, u32); 4] = [
        (&["exit", "3"], None, 3),
        (&["exit", "0"], None, 0),
        // The first process of a pid namespace can't be aborted, only faulted: as under runc.
        (&["abort"], None, 139),
        (&["serve"], Some(9), 137),
    ];
    for (at, (args, signal, expected)) in cases.into_iter().enumerate() {
        let id = format!("e{at}");
        let shim = containerd.start(&id, &spec::wasm(&id, args));
        shim.create(&id).unwrap();
        shim.run(&id).unwrap();
        if let Some(signal) = signal {
            shim.kill(&id, signal).unwrap();
        }
        assert_eq!(shim.wait(&id), expected, "{args:?}");
        assert_eq!(shim.delete(&id).unwrap(), expected);
        let exits = containerd.events(&id, 4);
        let exits = exits.iter().filter(|e| e.starts_with("exit"));
        assert_eq!(exits.collect::<Vec<_>>(), [&format!("exit {id} {expected}")]);
        shim.shutdown();
    }
}

fn output() {
    let containerd = Containerd::new();
    let shim = containerd.start("o", &spec::wasm("o", &["print", "line\npartial"]));
    let fifo = |name: &str| {
        let path = containerd.folder.path().join(name);
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        path
    };
    let (out, err) = (fifo("out"), fifo("err"));
    let request = CreateTaskRequest {
        id: "o".into(),
        stdout: out.display().to_string(),
        stderr: err.display().to_string(),
        ..Default::default()
    };
    shim.create_with(request).unwrap();
    let read = |path: std::path::PathBuf| std::thread::spawn(move || fs::read_to_string(path));
    let (out, err) = (read(out), read(err));
    shim.run("o").unwrap();
    assert_eq!(shim.wait("o"), 0);
    assert_eq!(out.join().unwrap().unwrap(), "line\npartial");
    assert_eq!(err.join().unwrap().unwrap(), "to stderr");
    shim.delete("o").unwrap();
    shim.shutdown();
}

fn file_output() {
    let containerd = Containerd::new();
    let shim = containerd.start("f", &spec::wasm("f", &["print", "to a file"]));
    let file = containerd.folder.path().join("log");
    let stdout = format!("file://{}", file.display());
    let request = CreateTaskRequest { id: "f".into(), stdout, ..Default::default() };
    shim.create_with(request).unwrap();
    shim.run("f").unwrap();
    shim.wait("f");
    assert_eq!(fs::read_to_string(file).unwrap(), "to a file");
    shim.delete("f").unwrap();
    shim.shutdown();
}

pub fn told(file: &Path, key: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix(key)).unwrap_or_default();
    line.trim().to_owned()
}

fn pod() {
    let containerd = Containerd::new();
    let file = containerd.folder.path().join("told");
    let shim = containerd.start("s", &spec::sandbox("s", "the-pod"));
    let pause = shim.create("s").unwrap();
    shim.run("s").unwrap();
    let status = fs::read_to_string(format!("/proc/{pause}/status")).unwrap();
    for line in
        ["CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Uid:\t65535"]
    {
        assert!(status.contains(line), "{line} in {status}");
    }
    let root = fs::read_dir(format!("/proc/{pause}/root")).unwrap().count();
    assert_eq!(root, 0, "the pause process sees nothing");

    let path = file.display().to_string();
    let spec = spec::in_pod("c", "s", pause, &["tell", &path]);
    let same = containerd.start("c", &spec);
    assert_eq!(same.address, shim.address, "one shim serves the pod");
    shim.create("c").unwrap();
    let pid = shim.run("c").unwrap();
    until("it has told", || !told(&file, "env ").is_empty());
    for kind in ["net", "ipc", "uts"] {
        let of = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        assert_eq!(of(pid), of(pause), "{kind} is the pod's");
        assert_ne!(of(pid), of(std::process::id()), "{kind} is not the node's");
    }
    assert_eq!(told(&file, "hostname"), "the-pod");
    assert_eq!(told(&file, "pid"), "1");
    let port = fs::metadata(format!("/proc/{pid}/ns/net")).unwrap().ino();
    assert_ne!(port, fs::metadata("/proc/self/ns/net").unwrap().ino());
    // The cloner has come home: the shim itself is in no namespace of the pod.
    let shim_pid = shim.shim_pid("c");
    for task in fs::read_dir(format!("/proc/{shim_pid}/task")).unwrap().flatten() {
        let own = fs::read_link(task.path().join("ns/net"));
        assert_eq!(own.unwrap(), fs::read_link("/proc/self/ns/net").unwrap());
    }
    shim.kill("c", 15).unwrap();
    shim.wait("c");
    shim.delete("c").unwrap();
    shim.shutdown();
    assert!(alive(pause), "the pod is not over");
    shim.kill("s", 15).unwrap();
    assert_eq!(shim.wait("s"), 0);
    shim.delete("s").unwrap();
    shim.shutdown();
    until("the shim has ended", || !alive(shim_pid));
}

fn shared_processes() {
    let containerd = Containerd::new();
    let shim = containerd.start("s", &spec::sandbox("s", "pod"));
    let pause = shim.create("s").unwrap();
    shim.run("s").unwrap();
    let mut spec = spec::in_pod("c", "s", pause, &["serve"]);
    spec["linux"]["namespaces"][0]["path"] = json!(format!("/proc/{pause}/ns/pid"));
    spec::bundle(&containerd.bundle("c"), &spec);
    shim.create("c").unwrap();
    let pid = shim.run("c").unwrap();
    let of = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap();
    assert_eq!(of(pid), of(pause));
    assert_ne!(of(pid), of(std::process::id()));
    shim.kill("c", 15).unwrap();
    assert_eq!(shim.wait("c"), 0);
    shim.delete("c").unwrap();
    // A new namespace again, from the same cloner.
    let spec = spec::in_pod("d", "s", pause, &["exit", "4"]);
    spec::bundle(&containerd.bundle("d"), &spec);
    shim.create("d").unwrap();
    shim.run("d").unwrap();
    assert_eq!(shim.wait("d"), 4);
    shim.delete("d").unwrap();
    shim.delete("s").unwrap();
    shim.shutdown();
}

fn kept() {
    let containerd = Containerd::new();
    let file = containerd.folder.path().join("told");
    let mut spec = spec::wasm("k", &["tell", &file.display().to_string()]);
    spec["annotations"] = json!({"wick.dev/prefetch": "true"});
    spec["process"]["user"] = json!({"uid": 65_532, "gid": 65_532});
    // What the operator gives such a pod.
    spec["linux"]["resources"]["memory"]["limit"] = json!(16 << 20);
    let shim = containerd.start("k", &spec);
    let pid = shim.create("k").unwrap();
    shim.run("k").unwrap();
    let name = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(name.starts_with("wick-pause\0"), "{name}");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let of = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        line.unwrap().split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!([of("Uid:"), of("CapEff:"), of("NoNewPrivs:")], ["65532", "0000000000000000", "1"]);
    let own: u32 = of("RssAnon:").parse().unwrap();
    assert!(own < 1024, "{own} KiB");
    shim.kill("k", 15).unwrap();
    assert_eq!(shim.wait("k"), 0);
    shim.delete("k").unwrap();
    assert!(!file.exists(), "the package ran");
    shim.shutdown();
}

fn inheritance() {
    let containerd = Containerd::new();
    let file = containerd.folder.path().join("told");
    let path = file.display().to_string();
    let shim = containerd.start("i", &spec::wasm("i", &["tell", &path]));
    shim.create("i").unwrap();
    shim.run("i").unwrap();
    until("it has told", || !told(&file, "env ").is_empty());
    assert_eq!(told(&file, "env"), "PATH");
    // 4 lists them.
    assert_eq!(told(&file, "fds"), "0,1,2,3,4");
    let text = fs::read_to_string(&file).unwrap();
    for line in text.lines().filter_map(|l| l.strip_prefix("cgroup-line ")) {
        if line.contains("memory") || line.contains("pids") {
            assert!(line.ends_with(":/"), "a group of its own is its root: {line}");
        }
    }
    shim.delete("i").unwrap();
    shim.shutdown();
}

fn paused() {
    let containerd = Containerd::new();
    let file = containerd.folder.path().join("count");
    let path = file.display().to_string();
    let shim = containerd.start("p", &spec::wasm("p", &["count", &path]));
    shim.create("p").unwrap();
    shim.run("p").unwrap();
    until("it counts", || fs::read_to_string(&file).is_ok_and(|t| !t.is_empty()));
    let request = api::PauseRequest { id: "p".into(), ..Default::default() };
    shim.wait_for(shim.task.pause(context(), &request)).unwrap();
    assert_eq!(shim.status("p").unwrap().status, Status::PAUSED.into());
    std::thread::sleep(std::time::Duration::from_millis(30));
    let before = fs::read(&file).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert_eq!(fs::read(&file).unwrap(), before);
    let request = api::ResumeRequest { id: "p".into(), ..Default::default() };
    shim.wait_for(shim.task.resume(context(), &request)).unwrap();
    until("it counts again", || fs::read(&file).unwrap() != before);
    let request = api::PauseRequest { id: "p".into(), ..Default::default() };
    shim.wait_for(shim.task.pause(context(), &request)).unwrap();
    shim.kill("p", 9).unwrap();
    assert_eq!(shim.wait("p"), 137, "also while it is paused");
    shim.delete("p").unwrap();
    let events = containerd.events("p", 7);
    assert_eq!(
        events,
        ["create", "start", "paused", "resumed", "paused", "exit p 137", "delete 137"]
    );
    shim.shutdown();
}

fn updated() {
    let containerd = Containerd::new();
    let shim = containerd.start("u", &spec::wasm("u", &["serve"]));
    shim.create("u").unwrap();
    shim.run("u").unwrap();
    for (bytes, shares) in [(536_870_912, 512), (134_217_728, 2)] {
        let limits = json!({"memory": {"limit": bytes, "swap": bytes}, "cpu": {"shares": shares}});
        let resources = Any { value: limits.to_string().into_bytes(), ..Default::default() };
        let request = api::UpdateTaskRequest {
            id: "u".into(),
            resources: Some(resources).into(),
            ..Default::default()
        };
        shim.wait_for(shim.task.update(context(), &request)).unwrap();
        let read = |folder, file| fs::read_to_string(group(folder, "u").join(file)).unwrap();
        assert_eq!(read("memory", "memory.limit_in_bytes").trim(), bytes.to_string());
        assert_eq!(read("cpu", "cpu.shares").trim(), shares.to_string());
    }
    assert_eq!(shim.delete("u").unwrap(), 137, "delete ends what runs");
    shim.shutdown();
}

fn hooks() {
    let containerd = Containerd::new();
    let file = containerd.folder.path().join("hooks");
    let script = |word: &str| format!("read s; echo {word} \"$s\" >> {}", file.display());
    let hook = |word: &str| json!([{"path": "/bin/sh", "args": ["sh", "-c", script(word)]}]);
    let mut spec = spec::wasm("h", &["exit", "0"]);
    spec["hooks"] = json!({
        "createRuntime": hook("create"), "poststart": hook("after-start"), "poststop": hook("stop")
    });
    let shim = containerd.start("h", &spec);
    let pid = shim.create("h").unwrap();
    assert!(fs::read_to_string(&file).unwrap().contains(&format!("\"pid\":{pid}")));
    shim.run("h").unwrap();
    shim.wait("h");
    shim.delete("h").unwrap();
    let text = fs::read_to_string(&file).unwrap();
    let words: Vec<_> = text.lines().filter_map(|l| l.split(' ').next()).collect();
    assert_eq!(words, ["create", "after-start", "stop"]);
    shim.shutdown();
}

fn info() {
    let containerd = Containerd::new();
    spec::bundle(&containerd.bundle("v"), &spec::wasm("v", &[]));
    let shim = || std::process::Command::new(env!("CARGO_BIN_EXE_containerd-shim-wick-v1"));
    let info = shim().arg("-info").stdin(std::process::Stdio::null()).output().unwrap();
    assert!(info.status.success());
    assert!(String::from_utf8_lossy(&info.stdout).contains("io.containerd.wick.v1"));
    let version = shim().arg("-v").output().unwrap();
    assert!(String::from_utf8_lossy(&version.stdout).contains(env!("CARGO_PKG_VERSION")));
}
