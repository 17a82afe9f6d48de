//! What a node compiles once, by a task of its own, and its workers only read.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use wick_sandbox::order::Task;

use crate::pod::{Pod, root_or_skip};
use crate::support::text;
use crate::worker::{ask, backends, hostile};

#[test]
fn a_compile_task_fills_the_cache_that_others_only_read() {
    if !root_or_skip() {
        return;
    }
    let mut pod = hostile();
    let cache = pod.sandbox.path("cache");
    fs::create_dir(&cache).unwrap();
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o755)).unwrap();
    pod.order.cache = Some(cache.clone());
    pod.order.task = Task::Compile;
    pod.order.user.uid = 0;
    pod.order.user.gid = 0;
    let output = pod.run().end();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let entries = || -> Vec<_> {
        let entries = fs::read_dir(cache.join("components")).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| (entry.as_ref().unwrap().file_name(), entry.unwrap().metadata().unwrap()))
            .map(|(name, meta)| (name, meta.mode() & 0o777, meta.mtime_nsec()))
            .collect();
        names.sort();
        names
    };
    let filled = entries();
    assert_eq!(filled.len(), 2);
    assert!(filled.iter().all(|(_, mode, _)| *mode == 0o644), "{filled:?}");

    pod.order.task = Task::Run;
    pod.order.user.uid = 1000;
    pod.order.settings.log = Some("debug".into());
    let worker = pod.serve();
    let maps = fs::read_to_string(format!("/proc/{}/maps", worker.pid())).unwrap();
    assert!(maps.contains(".cwasm"), "compiled code is mapped from the cache: {maps}");
    assert!(ask(&worker, "good", "").contains("1.0"));
    assert_eq!(entries(), filled);
}

#[test]
fn a_compile_task_optimises_graphs_that_others_map() {
    if !root_or_skip() {
        return;
    }
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/passthrough");
    let example = std::path::Path::new(example);
    let read = |name: &str| {
        fs::read(example.join(name)).unwrap_or_else(|_| panic!("{name}: run `cargo xtask setup`"))
    };
    let mut pod = Pod::new();
    pod.file("wick.toml", &read("wick.toml")).file("model.onnx", &read("model.onnx"));
    let cache = pod.sandbox.path("cache");
    fs::create_dir(&cache).unwrap();
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o755)).unwrap();
    pod.order.backends = Some(backends());
    pod.order.cache = Some(cache);
    pod.order.task = Task::Compile;
    pod.order.user.uid = 0;
    pod.order.mounts.clear();
    let output = pod.run().end();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(!text(&output).contains("WARN"), "{}", text(&output));

    let mut pod = Pod { order: wick_sandbox::Order { task: Task::Run, ..pod.order }, ..pod };
    pod.order.user.uid = 1000;
    pod.order.mounts = Pod::new().order.mounts;
    let worker = pod.serve();
    let maps = fs::read_to_string(format!("/proc/{}/maps", worker.pid())).unwrap();
    assert!(maps.contains("weights.bin"), "{maps}");
    worker.signal("TERM");
    let output = worker.end();
    assert!(!text(&output).contains("WARN"), "{}", text(&output));
}
