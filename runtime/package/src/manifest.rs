//! The parsed `wick.toml`: what a package is and what it asks for.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::names::{BackendName, GraphName, PackageName, RelPath};
use crate::tensor::TensorSpec;

/// A whole, checked `wick.toml`.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    pub name: PackageName,
    pub version: semver::Version,
    /// One line for people.
    pub description: Option<String>,
    /// Absent: tensors go straight to the only graph.
    pub handler: Option<Handler>,
    /// In the order of the file. Without a handler exactly one.
    pub graphs: Vec<GraphSpec>,
    /// Empty for a package without handler that takes them from its graph.
    pub inputs: Vec<TensorSpec>,
    pub outputs: Vec<TensorSpec>,
    pub limits: Limits,
    pub idle: Idle,
    pub warmup: Warmup,
    pub wants: Wants,
}

/// The package's own code. Which world it is for is read from its exports.
#[derive(Debug, Clone, PartialEq)]
pub struct Handler {
    pub component: RelPath,
    /// Requests that one instance of a wasi-http guest answers, one after another. 1, the
    /// default, is a fresh instance for each.
    pub reuse: u32,
}

/// A model file and how it may run.
#[derive(Debug, Clone, PartialEq)]
pub struct GraphSpec {
    pub name: GraphName,
    pub path: RelPath,
    /// The whole permission, best first; never empty. Default: `["cpu"]`.
    pub devices: Vec<DeviceKind>,
    /// Part of the graph's nodes, 0.0 to 1.0, that must run on the chosen device.
    pub min_device_share: f32,
    /// Joins requests along the first dimension. Off unless written.
    pub batch: Option<Batch>,
    /// Threads for one inference; bounded by the CPU quota. Absent: the quota.
    pub threads: Option<NonZeroU32>,
    /// Insists on one backend. Absent: the best that is installed.
    pub backend: Option<BackendName>,
    pub variants: Vec<Variant>,
}

/// Other bytes for one kind of device, or other options.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    pub device: DeviceKind,
    /// Only for devices of this vendor, in the backend's spelling, lower case.
    pub vendor: Option<String>,
    /// The graph's own where none is written.
    pub path: RelPath,
    /// What a provider is told, by its name and the option's. Which there are is the provider's to know.
    pub options: BTreeMap<String, BTreeMap<String, String>>,
}

/// Kind of hardware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    Cpu,
    Gpu,
    Npu,
}

/// Dynamic batching.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// Most rows of a joined request; at least 2.
    pub max: NonZeroU32,
    /// Longest that a request waits for others.
    pub delay: Duration,
}

/// Upper bounds that the package sets for itself. The host may set lower ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory of one guest instance, in bytes.
    pub memory: u64,
    /// Wall time of one request, from admission to answer.
    pub timeout: Duration,
    /// Requests in work at once. Absent: twice the CPU quota or the
    /// largest batch, whichever is more.
    pub concurrency: Option<NonZeroU32>,
    /// Requests that wait for their turn.
    pub queue: u32,
    /// Longest that a request waits for its turn. Absent: as long as its time lasts.
    pub queue_timeout: Option<Duration>,
    /// Share of the processor while several models of a process want all of it,
    /// relative to the others' weights.
    pub weight: u32,
    /// Body of one request, in bytes.
    pub request: u64,
}

/// What is given back while nobody calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Idle {
    /// Time without a request after which graphs and sessions leave memory; the next
    /// request loads them again. Absent: they stay.
    pub graph: Option<Duration>,
}

/// What happens before a package is called ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warmup {
    /// Warm-up requests; 0 turns warming off.
    pub requests: u32,
    /// A file with an Open Inference JSON request, sent through the handler.
    /// Absent: graphs whose shapes are known are run on zeros.
    pub request: Option<RelPath>,
}

/// Requests for access, granted or not by the host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wants {
    pub network: Vec<HostPort>,
    /// Names of environment variables.
    pub env: Vec<String>,
    pub mounts: Vec<MountWant>,
}

/// A destination of outgoing requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// In lower case; an IPv6 address keeps its brackets, as in a URL.
    pub host: String,
    pub port: u16,
}

/// A folder that the guest would like to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountWant {
    /// What the host grants it by.
    pub name: String,
    /// Absolute path in the guest.
    pub path: String,
    pub writable: bool,
}

/// A file that the manifest names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamedFile<'a> {
    pub path: &'a RelPath,
    pub role: FileRole,
}

/// What a file of a package is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FileRole {
    /// The handler's component.
    Component,
    /// The request that warms the handler.
    Warmup,
    /// A model: large, mapped where it lies.
    Weights,
}

// === impl Manifest ===

impl Manifest {
    /// Every file that the manifest names, each once: the component, the warm-up
    /// request, then weights in the order of the graphs.
    pub fn files(&self) -> Vec<NamedFile<'_>> {
        let component =
            self.handler.iter().map(|handler| (&handler.component, FileRole::Component));
        let warmup = self.warmup.request.iter().map(|path| (path, FileRole::Warmup));
        let weights = self.graphs.iter().flat_map(|graph| {
            let variants = graph.variants.iter().map(|variant| &variant.path);
            std::iter::once(&graph.path).chain(variants).map(|path| (path, FileRole::Weights))
        });
        let mut seen = std::collections::BTreeSet::new();
        let named = component.chain(warmup).chain(weights).filter(|(path, _)| seen.insert(*path));
        named.map(|(path, role)| NamedFile { path, role }).collect()
    }

    /// Where the manifest names a file, for instance `[[graph]] magika`.
    pub(crate) fn named_by(&self, path: &RelPath) -> String {
        if self.handler.as_ref().is_some_and(|handler| handler.component == *path) {
            return "[handler]".to_owned();
        }
        if self.warmup.request.as_ref() == Some(path) {
            return "[warmup]".to_owned();
        }
        let graph = self.graphs.iter().find(|graph| {
            graph.path == *path || graph.variants.iter().any(|variant| variant.path == *path)
        });
        graph.map_or_else(|| "the manifest".to_owned(), |graph| format!("[[graph]] {}", graph.name))
    }
}

// === impl Limits, Warmup ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: 256 << 20,
            timeout: Duration::from_secs(30),
            concurrency: None,
            queue: 64,
            queue_timeout: None,
            weight: 1,
            request: 64 << 20,
        }
    }
}

impl Default for Warmup {
    fn default() -> Self {
        Self { requests: 1, request: None }
    }
}

// === impl FileRole, DeviceKind ===

impl FileRole {
    /// One word for people and annotations.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Component => "component",
            Self::Warmup => "warmup",
            Self::Weights => "weights",
        }
    }
}

impl DeviceKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Cpu, Self::Gpu, Self::Npu];

    /// The spelling in `wick.toml`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Gpu => "gpu",
            Self::Npu => "npu",
        }
    }
}

impl std::fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
