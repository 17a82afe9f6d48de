//! Bundles as containerd makes them: a `config.json`, and a root file system as an overlay
//! that the shim mounts.

use std::fs;
use std::path::{Path, PathBuf};

use containerd_shim::protos::types::mount::Mount;
use serde_json::{Value, json};

/// A bundle on disk.
pub struct Bundle {
    pub id: String,
    pub folder: PathBuf,
    /// What Create is told to mount.
    pub rootfs: Mount,
}

/// What a bundle runs.
pub struct Program<'a> {
    /// The image's files.
    pub image: &'a Path,
    pub args: &'a [&'a str],
    /// The parent of its control group.
    pub cgroup: &'a str,
}

// === impl Bundle ===

impl Bundle {
    pub fn write(folder: &Path, id: &str, program: &Program<'_>) -> anyhow::Result<Self> {
        let folder = folder.join(id);
        for part in ["rootfs", "upper", "work"] {
            fs::create_dir_all(folder.join(part))?;
        }
        // containerd reads the shim's log from a FIFO; a file takes it as well.
        fs::write(folder.join("log"), "")?;
        fs::write(folder.join("config.json"), spec(id, program).to_string())?;
        let layers = [
            format!("lowerdir={}", program.image.display()),
            format!("upperdir={}", folder.join("upper").display()),
            format!("workdir={}", folder.join("work").display()),
        ];
        let rootfs = Mount {
            type_: "overlay".to_owned(),
            source: "overlay".to_owned(),
            options: layers.to_vec(),
            ..Default::default()
        };
        Ok(Self { id: id.to_owned(), folder, rootfs })
    }
}

/// What containerd writes for `ctr run` without options, as far as it costs time.
fn spec(id: &str, program: &Program<'_>) -> Value {
    let capabilities =
        json!(["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_SETGID", "CAP_SETUID", "CAP_KILL"]);
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": program.args,
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs"},
        "mounts": mounts(),
        "linux": {
            "cgroupsPath": format!("{}/direct/{id}", program.cgroup),
            "resources": {
                "devices": [{"allow": false, "access": "rwm"}],
                "memory": {"limit": 512 << 20},
                "cpu": {"shares": 1024}
            },
            "namespaces": [
                {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
                {"type": "network"}
            ],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"]
        }
    })
}

fn mounts() -> Value {
    let hard = ["nosuid", "noexec", "nodev"];
    json!([
        {"destination": "/proc", "type": "proc", "source": "proc", "options": hard},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
         "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
         "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
         "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": hard},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs",
         "options": ["nosuid", "noexec", "nodev", "ro"]}
    ])
}
