//! `wick worker`, locked down as in a pod.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};
use wick_sandbox::order::Report;

use crate::pod::{Pod, READ_ONLY, Worker, guest, root_or_skip};
use crate::support::text;

/// A package of one vector in and one out, with a handler that does what a request says.
const HOSTILE: &str = r#"
[package]
name = "hostile"
version = "1.0.0"

[handler]
component = "handler.wasm"

[limits]
timeout = "1s"

[[graph]]
name = "g"
path = "g.onnx"

[[input]]
name = "x"
datatype = "FP32"
shape = [-1]

[[output]]
name = "y"
datatype = "FP32"
shape = [-1]
"#;

/// What any thread's status has after a lockdown.
const LOCKED: [&str; 9] = [
    "Uid:\t1000\t1000\t1000\t1000",
    "Gid:\t1000\t1000\t1000\t1000",
    "CapInh:\t0000000000000000",
    "CapPrm:\t0000000000000000",
    "CapEff:\t0000000000000000",
    "CapBnd:\t0000000000000000",
    "CapAmb:\t0000000000000000",
    "NoNewPrivs:\t1",
    "Seccomp:\t2",
];

pub fn hostile() -> Pod {
    let pod = Pod::new();
    pod.file("wick.toml", HOSTILE.as_bytes());
    pod.file("handler.wasm", &guest("hostile"));
    pod.file("g.onnx", &wick_testing::onnx::add_scalar(1.0, &[-1]));
    pod
}

/// Where `cargo xtask setup` has put ONNX Runtime.
pub fn backends() -> std::path::PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(std::path::PathBuf::from);
    let home = || std::path::PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache");
    let folder = cache.unwrap_or_else(home).join("wick/backends");
    assert!(folder.is_dir(), "{}: run `cargo xtask setup`", folder.display());
    folder
}

/// Every thread of a worker is locked down.
#[track_caller]
fn locked_down(worker: &Worker) -> usize {
    let tasks = fs::read_dir(format!("/proc/{}/task", worker.pid())).unwrap();
    let mut threads = 0;
    for task in tasks {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        for line in LOCKED {
            assert!(status.lines().any(|found| found == line), "no `{line}` in {status}");
        }
        threads += 1;
    }
    threads
}

#[test]
fn a_package_is_served_by_threads_that_are_all_locked_down() {
    if !root_or_skip() {
        return;
    }
    let pod = Pod::plus_one();
    let mut worker = pod.start();
    let phases = worker.ready();
    assert!(phases.iter().any(|phase| phase.name == "seccomp"), "{phases:?}");
    assert_eq!(locked_down(&worker), 1);
    worker.go();
    let answer = loop {
        let answer = worker.get("/v2/health/ready");
        if answer.contains("true") {
            break answer;
        }
    };
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let answer = pod.sandbox.json(&["infer", &worker.url(), "-i", "[1, 2, 3, 4]"]);
    assert_eq!(answer["outputs"][0]["data"], json!([2.0, 3.0, 4.0, 5.0]));
    assert!(locked_down(&worker) > 2);
    worker.signal("TERM");
    let output = worker.end();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("plus-one"), "{}", text(&output));
}

#[test]
fn a_package_that_was_compared_with_signed_files_is_read_below_what_the_pod_mounts() {
    if !root_or_skip() {
        return;
    }
    let mut pod = Pod::plus_one();
    let other = pod.sandbox.path("other.onnx");
    fs::write(&other, wick_testing::onnx::add_scalar(2.0, &[-1, 4])).unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o644)).unwrap();
    // The shim refuses this mount. Whatever gets past it is not what is served.
    pod.bind(&other, "/model.onnx", READ_ONLY);
    for (sealed, want) in [(false, 3.0), (true, 2.0)] {
        pod.order.sealed = sealed;
        let worker = pod.serve();
        let answer = pod.sandbox.json(&["infer", &worker.url(), "-i", "[1, 1, 1, 1]"]);
        assert_eq!(answer["outputs"][0]["data"], json!([want, want, want, want]), "{sealed}");
        worker.signal("TERM");
        assert_eq!(worker.end().status.code(), Some(0));
    }
}

#[test]
fn the_phases_of_a_start_are_spans_with_their_times() {
    if !root_or_skip() {
        return;
    }
    let mut pod = Pod::plus_one();
    pod.order.env.push("WICK_LOG_FORMAT=json".to_owned());
    pod.order.settings.log = Some("info,wick=debug".to_owned());
    let worker = pod.serve();
    worker.signal("TERM");
    let output = worker.end();
    let log = String::from_utf8_lossy(&output.stderr);
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut spans: Vec<Value> = lines.map(|line| line["span"].clone()).collect();
    spans.retain(|span| span["name"] == "start");
    let times: Vec<u64> = spans
        .iter()
        .flat_map(|span| [&span["at"], &span["end"]].map(|time| time.as_u64().unwrap()))
        .collect();
    assert!(times.is_sorted(), "one after the other: {log}");
    let names: Vec<&str> = spans.iter().filter_map(|span| span["phase"].as_str()).collect();
    for name in ["order", "backends", "mount", "seccomp", "listen"] {
        assert!(names.contains(&name), "{name}: {log}");
    }
}

#[test]
fn onnx_runtime_is_mapped_before_the_lockdown_and_used_after_it() {
    if !root_or_skip() {
        return;
    }
    let mut pod = Pod::plus_one();
    pod.order.backends = Some(backends());
    let mut worker = pod.start();
    worker.ready();
    let maps = fs::read_to_string(format!("/proc/{}/maps", worker.pid())).unwrap();
    assert!(maps.contains("libonnxruntime.so"), "{maps}");
    drop(worker);
    let worker = pod.serve();
    let answer = pod.sandbox.json(&["infer", &worker.url(), "-i", "[1, 2, 3, 4]"]);
    assert_eq!(answer["outputs"][0]["data"], json!([2.0, 3.0, 4.0, 5.0]));
    let metrics = worker.get("/metrics");
    assert!(metrics.contains("onnxruntime"), "{metrics}");
    locked_down(&worker);
}

#[test]
fn requests_in_work_are_finished_after_sigterm() {
    if !root_or_skip() {
        return;
    }
    let pod = Pod::new().args(&["/app/web.wasm"]);
    pod.file("app/web.wasm", &guest("web"));
    let worker = pod.serve();
    let mut stream = worker.connect();
    let head = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\nConnection: close\r\n\r\n";
    stream.write_all(format!("{head}half").as_bytes()).unwrap();
    // The guest answers what it has: the request is in work.
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    worker.signal("TERM");
    std::thread::sleep(std::time::Duration::from_millis(100));
    stream.write_all(b"more").unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("half") && rest.contains("more"), "{rest}");
    let output = worker.end();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
}

#[test]
fn a_bare_command_has_the_container_s_arguments_output_and_code() {
    if !root_or_skip() {
        return;
    }
    let pod = Pod::new().args(&["/tool.wasm", "3", "two words"]);
    pod.file("tool.wasm", &guest("tool"));
    let output = pod.run().end();
    // A component says only whether it went well.
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "app 3 two words\n");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("2 arguments\n"), "{stderr}");

    let module = r#"(module
      (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
      (memory (export "memory") 1)
      (func (export "_start") (call $exit (i32.const 7))))"#;
    let pod = Pod::new().args(&["/app.wasm"]);
    pod.file("app.wasm", &wat::parse_str(module).unwrap());
    let output = pod.run().end();
    assert_eq!(output.status.code(), Some(7), "{}", text(&output));
}

#[test]
fn a_bare_command_has_the_pod_s_variables_and_folders() {
    if !root_or_skip() {
        return;
    }
    let module = r#"(module
      (import "wasi_snapshot_preview1" "environ_sizes_get"
        (func $sizes (param i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "environ_get" (func $get (param i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "fd_prestat_dir_name"
        (func $folder (param i32 i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "fd_write"
        (func $write (param i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 1)
      (func (export "_start")
        (drop (call $sizes (i32.const 0) (i32.const 4)))
        (drop (call $get (i32.const 64) (i32.const 256)))
        (i32.store (i32.const 16) (i32.const 256))
        (i32.store (i32.const 20) (i32.load (i32.const 4)))
        (drop (call $write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 8)))
        (drop (call $folder (i32.const 4) (i32.const 1024) (i32.const 5)))
        (i32.store (i32.const 16) (i32.const 1024))
        (i32.store (i32.const 20) (i32.const 5))
        (drop (call $write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 8)))))"#;
    let mut pod = Pod::new().args(&["/app.wasm"]);
    pod.file("app.wasm", &wat::parse_str(module).unwrap());
    let data = pod.sandbox.path("data");
    fs::create_dir(&data).unwrap();
    pod.bind(&data, "/data", 0);
    pod.order.env = vec!["A=1".into(), "B=2".into()];
    // Whether its own files are read below the pod's mounts or not.
    for sealed in [false, true] {
        pod.order.sealed = sealed;
        let output = pod.run().end();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        assert_eq!(String::from_utf8_lossy(&output.stdout), "A=1\0B=2\0/data");
    }
}

#[test]
fn output_arrives_while_the_command_runs_and_a_signal_ends_it() {
    if !root_or_skip() {
        return;
    }
    let pod = Pod::new().args(&["/tool.wasm", "loop"]);
    pod.file("tool.wasm", &guest("tool"));
    let mut worker = pod.run();
    let mut line = [0; 9];
    worker.child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    assert_eq!(&line, b"app loop\n");
    worker.signal("TERM");
    assert_eq!(worker.end().status.code(), Some(143));
}

#[test]
fn a_last_line_without_an_end_is_not_lost() {
    if !root_or_skip() {
        return;
    }
    let module = r#"(module
      (import "wasi_snapshot_preview1" "fd_write"
        (func $write (param i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 1)
      (data (i32.const 16) "part of a line")
      (func (export "_start")
        (i32.store (i32.const 0) (i32.const 16))
        (i32.store (i32.const 4) (i32.const 14))
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;
    let pod = Pod::new().args(&["app.wasm"]);
    pod.file("app.wasm", &wat::parse_str(module).unwrap());
    let output = pod.run().end();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert_eq!(output.stdout, b"part of a line");
}

/// Ask the hostile guest for something; its answer's text.
pub fn ask(worker: &Worker, mode: &str, path: &str) -> String {
    let request = json!({
        "parameters": { "mode": mode, "path": path },
        "inputs": [{ "name": "x", "datatype": "FP32", "shape": [2], "data": [1.0, 2.0] }],
    });
    let answer = worker.post("/v2/models/hostile/infer", &request.to_string());
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    let json: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{answer}"));
    json["error"].as_str().map_or_else(|| json.to_string(), str::to_owned)
}

#[test]
fn a_hostile_guest_sees_neither_node_nor_worker_nor_secrets() {
    if !root_or_skip() {
        return;
    }
    let mut pod = hostile();
    pod.file("open", b"of the image");
    let secrets = pod.sandbox.path("secrets");
    fs::create_dir(&secrets).unwrap();
    fs::write(secrets.join("token"), "of the pod").unwrap();
    pod.bind(&secrets, "/var/run/secrets/kubernetes.io/serviceaccount", READ_ONLY);
    pod.order.env = vec!["TOKEN=of the pod".into()];
    let worker = pod.serve();
    assert!(ask(&worker, "good", "").contains("1.0"));
    assert!(ask(&worker, "file", "/open").contains("of the image"));
    for path in [
        "/etc/passwd",
        "/proc/self/environ",
        "/proc/self/maps",
        "/proc/1/cwd/etc/passwd",
        "/../../etc/passwd",
        "/sys/kernel/notes",
        "/dev/null",
        "/run/wick/cache",
        "/var/run/secrets/kubernetes.io/serviceaccount/token",
    ] {
        let answer = ask(&worker, "file", path);
        let refused = ["No such file", "not permitted", "denied", "not found"];
        assert!(refused.iter().any(|text| answer.contains(text)), "{path}: {answer}");
    }
    // Wanted by nobody, so given to nobody.
    assert!(ask(&worker, "env", "").contains("none"));
    for mode in ["loop", "allocate", "panic", "recurse", "exit"] {
        drop(ask(&worker, mode, ""));
    }
    assert!(ask(&worker, "good", "").contains("1.0"));
    worker.signal("TERM");
    assert_eq!(worker.end().status.code(), Some(0));
}

#[test]
fn a_broken_package_is_told_to_the_shim_the_log_and_the_pod() {
    if !root_or_skip() {
        return;
    }
    let mut pod = Pod::plus_one();
    pod.file("model.onnx", b"no model");
    let message = pod.sandbox.path("termination");
    fs::write(&message, "").unwrap();
    fs::set_permissions(&message, fs::Permissions::from_mode(0o666)).unwrap();
    pod.bind(&message, "/dev/termination-log", 0);
    let mut worker = pod.run();
    let Report::Failed { code, message: told } = worker.report() else { panic!("no failure") };
    assert_eq!(code, "graph-invalid");
    let output = worker.end();
    assert_eq!(output.status.code(), Some(65), "{}", text(&output));
    assert!(text(&output).contains(&told), "{}", text(&output));
    assert_eq!(fs::read_to_string(&message).unwrap(), told);
}

#[test]
fn what_can_not_be_honoured_is_told_before_anything_runs() {
    if !root_or_skip() {
        return;
    }
    let mut pod = Pod::plus_one();
    pod.bind(std::path::Path::new("/nothing/here"), "/data", 0);
    let mut worker = pod.start();
    let Report::Failed { code, message } = worker.report() else { panic!("no failure") };
    assert_eq!(code, "sandbox-failed");
    assert!(message.contains("/nothing/here"), "{message}");
    assert_eq!(worker.end().status.code(), Some(1));

    let mut pod = Pod::plus_one();
    pod.order.version += 1;
    let mut worker = pod.start();
    let Report::Failed { code, message } = worker.report() else { panic!("no failure") };
    assert_eq!(code, "order");
    assert!(message.contains("version"), "{message}");
}

#[test]
fn a_worker_that_waits_for_go_ends_by_a_signal_and_with_its_shim() {
    if !root_or_skip() {
        return;
    }
    let pod = Pod::plus_one();
    let mut worker = pod.start();
    worker.ready();
    worker.signal("TERM");
    assert_eq!(worker.end().status.code(), Some(143));
    let mut worker = pod.start();
    worker.ready();
    let (other, _) = wick_sandbox::Channel::pair().unwrap();
    worker.channel = other;
    assert_eq!(worker.end().status.code(), Some(1));
}

#[test]
fn a_worker_ends_with_whoever_has_started_it() {
    if !root_or_skip() {
        return;
    }
    let pod = Pod::plus_one();
    let mut worker = pod.serve();
    let process = std::path::PathBuf::from(format!("/proc/{}", worker.pid()));
    // It asks the kernel to kill its child when it dies itself, as the shim does.
    worker.child.kill().unwrap();
    worker.child.wait().unwrap();
    let start = std::time::Instant::now();
    while process.exists() {
        assert!(start.elapsed() < std::time::Duration::from_secs(10), "it has outlived its shim");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn a_guest_reaches_what_the_pod_grants_and_nothing_else() {
    if !root_or_skip() {
        return;
    }
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in server.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    let mut pod = Pod::new().args(&["/app/web.wasm"]);
    pod.file("app/web.wasm", &guest("web"));
    let hosts = pod.sandbox.path("hosts");
    fs::write(&hosts, "127.0.0.1 other.test\n").unwrap();
    pod.bind(&hosts, "/etc/hosts", READ_ONLY);
    let fetch = |worker: &Worker, host: &str| {
        worker.get(&format!("/fetch?{host}:{port}")).contains("status 200")
    };
    let worker = pod.serve();
    assert!(!fetch(&worker, "127.0.0.1"));
    pod.order.settings.network = vec![format!("127.0.0.1:{port}"), format!("other.test:{port}")];
    let worker = pod.serve();
    assert!(fetch(&worker, "127.0.0.1"));
    // By a name that the pod's own file has.
    assert!(fetch(&worker, "other.test"));
    assert!(!fetch(&worker, "localhost"));
}
