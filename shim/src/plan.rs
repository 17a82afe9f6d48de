//! From a container's `config.json` to what is done for it: pure, and total. What can't be
//! honoured is refused by name, all of it at once, and never ignored.
//!
//! ```text
//!  Spec + Facts ──▶ kind ── ordinary ──▶ runc
//!                    ├──── sandbox ───▶ Plan (pause)
//!                    └──── wasm ──────▶ Plan (worker, or pause to keep an image)
//! ```
//!
//! It reads no file and starts nothing. Docs: docs/shim.md lists what is honoured, refused
//! and made stricter.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Hook, Spec};
use wick_sandbox::order::{Order, Rlimit, Settings, Task, User, VERSION};

use crate::cgroup::{CgroupPath, Limits};
use crate::policy::Asked;

mod annotations;
mod devices;
mod mounts;
mod namespaces;
mod refuse;

pub use namespaces::{Namespace, Namespaces};

const CONTAINER_TYPE: &str = "io.kubernetes.cri.container-type";
const CONTAINER_NAME: &str = "io.kubernetes.cri.container-name";
/// Since containerd 2.0 the name that the pod asked for; before, one of the image's names.
const IMAGE_NAME: &str = "io.kubernetes.cri.image-name";

/// What a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The pod's sandbox: our own pause process.
    Sandbox,
    /// A package or a WebAssembly file: a worker.
    Wasm,
    /// Anything else: runc.
    Ordinary,
}

/// What is known beside the spec.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    pub id: String,
    pub namespace: String,
    /// Where the root file system is mounted.
    pub rootfs: PathBuf,
    pub terminal: bool,
    pub stdout: String,
    pub stderr: String,
}

/// What is done for a sandbox or a WebAssembly container.
#[derive(Debug)]
pub struct Plan {
    pub order: Order,
    pub cgroup: CgroupPath,
    pub limits: Limits,
    pub namespaces: Namespaces,
    pub oom_score_adj: Option<i32>,
    pub hooks: Hooks,
    /// Kernel settings of the sandbox's namespaces.
    pub sysctl: BTreeMap<String, String>,
    /// What the policy is asked about.
    pub asked: Asked,
    /// The annotation asks for backends whatever the package says.
    pub wants_backends: bool,
    /// The process is one that only waits: the pod's own, or that of a package which is to be
    /// there and not to run.
    pub pauses: bool,
}

/// Programs of the node that the spec wants to be run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Before the worker is told anything, in the node's namespaces.
    pub create: Vec<Hook>,
    pub poststart: Vec<Hook>,
    pub poststop: Vec<Hook>,
}

/// One thing that can't be honoured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The field's name as in the spec, or the annotation's.
    pub field: String,
    pub why: String,
}

/// All of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusals(pub Vec<Refusal>);

// === impl Kind ===

impl Kind {
    pub fn of(spec: &Spec) -> Self {
        if annotation(spec, CONTAINER_TYPE) == Some("sandbox") {
            return Self::Sandbox;
        }
        let args = spec.process().as_ref().and_then(|p| p.args().as_ref());
        let first = args.and_then(|a| a.first()).map_or("", String::as_str);
        let path = Path::new(first);
        let package = path.file_name().is_some_and(|name| name == "wick.toml");
        let wasm = path.extension().is_some_and(|e| e == "wasm");
        if package || wasm { Self::Wasm } else { Self::Ordinary }
    }
}

/// The path of a container's control group.
///
/// # Errors
/// The spec names the root or leaves it.
pub fn cgroup_path(spec: &Spec, namespace: &str, id: &str) -> Result<CgroupPath, Refusal> {
    let named = spec.linux().as_ref().and_then(|l| l.cgroups_path().as_ref());
    let text = named.map(|p| p.display().to_string()).filter(|p| !p.is_empty());
    let text = text.unwrap_or_else(|| format!("/wick/{namespace}/{id}"));
    CgroupPath::parse(&text).map_err(|e| Refusal::new("linux.cgroupsPath", e.to_string()))
}

/// Decide for a sandbox or a WebAssembly container.
///
/// # Errors
/// Everything that can't be honoured.
pub fn plan(kind: Kind, spec: &Spec, facts: &Facts) -> Result<Plan, Refusals> {
    let mut refusals = Vec::new();
    refuse::check(kind, spec, facts, &mut refusals);
    let settings = match kind {
        Kind::Wasm => annotations::settings(spec, container_name(spec, facts), &mut refusals),
        Kind::Sandbox | Kind::Ordinary => annotations::Wishes::default(),
    };
    let cgroup = cgroup_path(spec, &facts.namespace, &facts.id);
    let cgroup = cgroup.map_err(|refusal| refusals.push(refusal)).ok();
    let order = order(kind, spec, facts, settings.settings, &mut refusals);
    let namespaces = Namespaces::of(spec, &mut refusals);
    match (cgroup, refusals.is_empty()) {
        (Some(cgroup), true) => {
            let linux = spec.linux().as_ref();
            let process = spec.process().as_ref();
            let sysctl = linux.and_then(|l| l.sysctl().clone()).unwrap_or_default();
            Ok(Plan {
                order,
                cgroup,
                limits: Limits::at_creation(linux.and_then(|l| l.resources().as_ref())),
                namespaces,
                oom_score_adj: process.and_then(oci_spec::runtime::Process::oom_score_adj),
                hooks: hooks(spec),
                sysctl: sysctl.into_iter().collect(),
                asked: Asked {
                    image: annotation(spec, IMAGE_NAME).map(str::to_owned),
                    envelope: settings.signature,
                },
                wants_backends: settings.wants_backends,
                pauses: kind == Kind::Sandbox || settings.prefetch,
            })
        }
        _ => Err(Refusals(refusals)),
    }
}

fn order(
    kind: Kind,
    spec: &Spec,
    facts: &Facts,
    settings: Settings,
    refusals: &mut Vec<Refusal>,
) -> Order {
    let process = spec.process().as_ref();
    let linux = spec.linux().as_ref();
    let user = process.map(oci_spec::runtime::Process::user);
    let paths = |list: Option<&Vec<String>>| -> Vec<PathBuf> {
        list.into_iter().flatten().map(PathBuf::from).collect()
    };
    let sandbox = kind == Kind::Sandbox;
    Order {
        version: VERSION,
        task: Task::Run,
        name: container_name(spec, facts).to_owned(),
        rootfs: facts.rootfs.clone(),
        sealed: false,
        // The pause process sees nothing: what a sandbox's spec mounts is for its containers.
        mounts: if sandbox { Vec::new() } else { mounts::all(spec, refusals) },
        devices: if sandbox { Vec::new() } else { devices::all(spec, refusals) },
        args: process.and_then(|p| p.args().clone()).unwrap_or_default(),
        env: process.and_then(|p| p.env().clone()).unwrap_or_default(),
        cwd: process.map_or_else(|| "/".into(), |p| p.cwd().clone()),
        user: User {
            uid: user.map_or(0, oci_spec::runtime::User::uid),
            gid: user.map_or(0, oci_spec::runtime::User::gid),
            additional_gids: user.and_then(|u| u.additional_gids().clone()).unwrap_or_default(),
            umask: user.and_then(oci_spec::runtime::User::umask),
        },
        rlimits: process.map(rlimits).unwrap_or_default(),
        masked_paths: paths(linux.and_then(|l| l.masked_paths().as_ref())),
        readonly_paths: paths(linux.and_then(|l| l.readonly_paths().as_ref())),
        apparmor: process.and_then(|p| p.apparmor_profile().clone()).filter(|p| !p.is_empty()),
        hostname: spec.hostname().clone().filter(|h| !h.is_empty()),
        backends: None,
        accelerators: Vec::new(),
        cache: None,
        settings,
    }
}

fn rlimits(process: &oci_spec::runtime::Process) -> Vec<Rlimit> {
    let one = |r: &oci_spec::runtime::PosixRlimit| Rlimit {
        name: r.typ().to_string(),
        soft: r.soft(),
        hard: r.hard(),
    };
    process.rlimits().iter().flatten().map(one).collect()
}

fn hooks(spec: &Spec) -> Hooks {
    let Some(hooks) = spec.hooks() else { return Hooks::default() };
    #[allow(deprecated, reason = "runtimes must still run prestart hooks of older specs")]
    let prestart = hooks.prestart().iter().flatten();
    let created = hooks.create_runtime().iter().flatten();
    // They run where the node sees the root file system, before anything is bound into it.
    let inside = hooks.create_container().iter().flatten();
    Hooks {
        create: prestart.chain(created).chain(inside).cloned().collect(),
        poststart: hooks.poststart().clone().unwrap_or_default(),
        poststop: hooks.poststop().clone().unwrap_or_default(),
    }
}

fn container_name<'a>(spec: &'a Spec, facts: &'a Facts) -> &'a str {
    annotation(spec, CONTAINER_NAME).unwrap_or(&facts.id)
}

fn annotation<'a>(spec: &'a Spec, name: &str) -> Option<&'a str> {
    spec.annotations().as_ref()?.get(name).map(String::as_str)
}

// === impl Plan ===

impl Plan {
    /// A host name can only be given to a namespace of its own.
    pub fn names_its_host(&self) -> bool {
        self.namespaces.uts == Namespace::New
    }
}

// === impl Refusal ===

impl Refusal {
    pub fn new(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self { field: field.into(), why: why.into() }
    }
}

impl fmt::Display for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("wick can't run this container: ")?;
        for (at, refusal) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "; " };
            write!(f, "{comma}{}: {}", refusal.field, refusal.why)?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusals {}

#[cfg(test)]
mod tests;
