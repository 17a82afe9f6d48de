//! The messages between a shim and its worker. Both ends are of one release, which
//! [`VERSION`] proves: the first thing in each conversation.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The version of these messages. A worker refuses an order of any other.
pub const VERSION: u32 = 3;

/// The code of [`Report::Failed`] when the node's cache had no room for what was compiled.
pub const CACHE_FULL: &str = "cache-full";

/// Everything that a worker is told before it locks itself down. Paths are the node's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// [`VERSION`] of the shim.
    pub version: u32,
    /// What the worker is for.
    pub task: Task,
    /// The pod's or container's name for logs, errors and a bare component's model name.
    pub name: String,
    /// The image's root file system, mounted by the shim. It becomes `/`, read-only.
    pub rootfs: PathBuf,
    /// Whether its files were compared with signed ones. Then the worker reads them where no mount
    /// of the pod can lie, and mounts follow no links, which only volumes have then.
    pub sealed: bool,
    /// What is mounted into it, in this order.
    pub mounts: Vec<Mount>,
    /// Device nodes that are made under its `/dev`.
    pub devices: Vec<Device>,
    /// The command of the image or the pod: the first is `/wick.toml` or a `.wasm` file.
    pub args: Vec<String>,
    /// `NAME=VALUE` as in the OCI spec.
    pub env: Vec<String>,
    /// The working folder, inside the root file system.
    pub cwd: PathBuf,
    pub user: User,
    pub rlimits: Vec<Rlimit>,
    /// Paths inside the root file system that are hidden.
    pub masked_paths: Vec<PathBuf>,
    /// Paths inside the root file system that can't be written, whatever is mounted there.
    pub readonly_paths: Vec<PathBuf>,
    /// The AppArmor profile that the process changes to.
    pub apparmor: Option<String>,
    pub hostname: Option<String>,
    /// The node's folder of backends, bound read-only, if there is one.
    pub backends: Option<PathBuf>,
    /// Kinds of device beside the CPU that its graphs may run on, as `wick.toml` spells them.
    pub accelerators: Vec<String>,
    /// The node's cache of compiled code and optimised graphs, bound read-only. For
    /// [`Task::Compile`] a folder of its own that it fills.
    pub cache: Option<PathBuf>,
    pub settings: Settings,
}

/// What a worker is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Serve, or run a command to its end.
    Run,
    /// Compile the component and optimise the graphs into [`Order::cache`], and end.
    Compile,
}

/// What annotations and the environment decide about serving, already checked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Where to listen, `0.0.0.0:8080` unless told: annotation `wick.dev/addr`.
    pub addr: Option<String>,
    /// `HOST:PORT` that the package may connect to if it wants to: `wick.dev/network`.
    pub network: Vec<String>,
    /// A `tracing` filter for the worker's own log: `wick.dev/log`.
    pub log: Option<String>,
    /// Milliseconds that requests have to finish after SIGTERM: `wick.dev/drain`.
    pub drain_ms: Option<u64>,
    /// Most bytes of the package's graphs on one GPU or NPU: `wick.dev/device-memory`.
    pub device_memory: Option<u64>,
    /// Milliseconds of these in which new requests are still answered: `wick.dev/linger`.
    pub linger_ms: Option<u64>,
}

/// One mount of the OCI spec, its options sorted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Inside the root file system.
    pub destination: PathBuf,
    /// The file system's type; `bind` for a bind mount.
    pub kind: String,
    pub source: PathBuf,
    /// Bits of `MS_*`, without propagation.
    pub flags: u64,
    /// Bits of `MS_*` for propagation; 0 is none.
    pub propagation: u64,
    /// What the file system takes as text.
    pub data: String,
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    pub path: PathBuf,
    /// `c`, `b` or `p`, as in the OCI spec.
    pub kind: char,
    pub major: u32,
    pub minor: u32,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// Who the worker becomes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub additional_gids: Vec<u32>,
    pub umask: Option<u32>,
}

/// One limit of the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// `RLIMIT_NOFILE` and so on.
    pub name: String,
    pub soft: u64,
    pub hard: u64,
}

/// containerd has called Start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Go {
    pub version: u32,
}

/// What a worker says. The last report before it ends by itself is [`Report::Failed`] if
/// something failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Report {
    /// Locked down, and waiting for [`Go`].
    Ready { phases: Vec<Phase> },
    /// The port listens, or the command runs. `addr` is where a server listens.
    Started { addr: Option<String>, phases: Vec<Phase> },
    /// It can't go on. `code` is a stable word, `message` is for people and says what to do.
    Failed { code: String, message: String },
}

/// When a part of the start was, and how long it took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    pub name: String,
    /// Its start, in microseconds since 1970: shim and worker have one clock.
    pub at: u64,
    pub micros: u64,
}

// === impl Phase ===

impl Phase {
    /// A phase that ends now.
    pub fn since(name: impl Into<String>, begun: Instant) -> Self {
        let took = begun.elapsed();
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Self { name: name.into(), at: micros(at.saturating_sub(took)), micros: micros(took) }
    }

    /// When it ended, in microseconds since 1970.
    pub fn end(&self) -> u64 {
        self.at.saturating_add(self.micros)
    }
}
