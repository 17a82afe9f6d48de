//! Bundles: small `config.json`s of the three kinds of containers.

use std::path::Path;

use serde_json::{Value, json};

/// The parent of every control group of this process's tests.
pub fn group_root() -> String {
    format!("/wick-test-{}", std::process::id())
}

/// Remove that parent from every hierarchy. A group that is left in it stays, to be seen.
pub fn remove_groups() {
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        let _ = std::fs::remove_dir(hierarchy.path().join(&group_root()[1..]));
    }
}

/// A WebAssembly container outside a pod, which the stand-in plays.
pub fn wasm(id: &str, args: &[&str]) -> Value {
    let mut all = vec!["/test.wasm"];
    all.extend(args);
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": all,
            "env": ["PATH=/bin"],
            "cwd": "/",
            "oomScoreAdj": 500
        },
        "root": {"path": "rootfs"},
        "annotations": {},
        "linux": {
            "cgroupsPath": format!("{}/{id}", group_root()),
            "resources": {
                "devices": [{"allow": false, "access": "rwm"}],
                "memory": {"limit": 268_435_456},
                "cpu": {"shares": 128},
                "pids": {"limit": 64}
            },
            "namespaces": [
                {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
                {"type": "network"}, {"type": "cgroup"}
            ]
        }
    })
}

/// A pod's sandbox.
pub fn sandbox(id: &str, hostname: &str) -> Value {
    let mut spec = wasm(id, &[]);
    spec["process"]["args"] = json!(["/pause"]);
    spec["process"]["user"] = json!({"uid": 65_535, "gid": 65_535});
    spec["hostname"] = json!(hostname);
    spec["annotations"] = json!({
        "io.kubernetes.cri.container-type": "sandbox",
        "io.kubernetes.cri.sandbox-id": id,
    });
    spec["linux"]["sysctl"] = json!({"net.ipv4.ip_unprivileged_port_start": "0"});
    spec
}

/// A WebAssembly container in a pod whose pause process has this id.
pub fn in_pod(id: &str, sandbox: &str, pause: u32, args: &[&str]) -> Value {
    let mut spec = wasm(id, args);
    spec["annotations"] = json!({
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.container-name": id,
        "io.kubernetes.cri.sandbox-id": sandbox,
    });
    let of = |kind: &str| format!("/proc/{pause}/ns/{kind}");
    spec["linux"]["namespaces"] = json!([
        {"type": "pid"},
        {"type": "ipc", "path": of("ipc")},
        {"type": "uts", "path": of("uts")},
        {"type": "network", "path": of("net")},
        {"type": "mount"}
    ]);
    spec
}

/// A container for runc that runs the node's shell, seen through bind mounts.
pub fn ordinary(id: &str, script: &str) -> Value {
    let mut spec = wasm(id, &[]);
    spec["process"]["args"] = json!(["/bin/sh", "-c", script]);
    spec["process"]["env"] = json!(["PATH=/usr/bin:/bin"]);
    spec["process"].as_object_mut().unwrap().remove("oomScoreAdj");
    let bind = |path: &str| json!({"destination": path, "type": "bind", "source": path, "options": ["rbind", "ro"]});
    spec["mounts"] = json!([
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]},
        bind("/bin"), bind("/usr"), bind("/lib"), bind("/lib64")
    ]);
    // runc makes a network namespace slowly, and nothing here needs one.
    spec["linux"]["namespaces"] = json!([{"type": "pid"}, {"type": "ipc"}, {"type": "mount"}]);
    spec
}

/// Write a bundle: its spec, an empty root and the log.
pub fn bundle(folder: &Path, spec: &Value) {
    std::fs::create_dir_all(folder.join("rootfs")).unwrap();
    std::fs::write(folder.join("log"), "").unwrap();
    std::fs::write(folder.join("config.json"), spec.to_string()).unwrap();
}
