//! Making a container: from the bundle to a process that waits for Start.
//!
//! Whatever fails, what was made before it is undone: no process, control group or mount
//! stays behind a failed Create.

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use containerd_shim::protos::api::CreateTaskRequest;
use containerd_shim::protos::events::task::{TaskCreate, TaskIO};
use oci_spec::runtime::Spec;
use rustix::process::{Signal, pidfd_send_signal};
use tokio::task::spawn_blocking;
use wick_package::{DeviceKind, Manifest};
use wick_sandbox::Channel;
use wick_sandbox::order::{Phase, VERSION};

use crate::cgroup::Cgroup;
use crate::clone::{Birth, Child};
use crate::container::{Container, Engine, Parts};
use crate::exit::Fault;
use crate::hooks::{self, Told};
use crate::pause::{self, PauseOrder};
use crate::phases::Phases;
use crate::plan::{self, Facts, Kind, Plan};
use crate::pod::{Pod, Tools};
use crate::policy::{self, Admission};
use crate::roster::Member;
use crate::stdio::{Names, Stdio};
use crate::worker::Worker;
use crate::{cache, host, ordinary, rootfs};

/// Longest `wick.toml` that the shim reads to see whether the package has graphs.
const MAX_MANIFEST: u64 = 1 << 20;

/// A file of the bundle that tells containerd, after its own restart, which shim serves the task.
const SHIM_PATH: &str = "shim-binary-path";

/// What is done before anything of a container is made.
pub const LISTED: &str = "note the container for a cleanup without this shim";

/// What is known of a container before anything is made.
struct Job {
    request: CreateTaskRequest,
    bundle: PathBuf,
    kind: Kind,
    plan: Plan,
    names: Names,
    cgroup: Cgroup,
    phases: Phases,
}

/// Its process, which has not been told anything yet.
struct Born {
    child: Child,
    worker: Worker,
    kept: crate::stdio::Kept,
}

/// Create a task, and tell containerd.
///
/// # Errors
/// The spec is refused, or a step fails. Nothing is left then.
pub async fn create(pod: &Arc<Pod>, request: CreateTaskRequest) -> Result<u32, Fault> {
    pod.reserve(&request.id).await?;
    let id = request.id.clone();
    let event = created(&request);
    let mark = pod.tools().reaper.mark().await;
    let made = make(pod, request).await;
    if made.is_err() {
        pod.forget(&id).await;
    }
    let parts = made?;
    let exit = pod.tools().reaper.watch(parts.pid, mark).await;
    let container = Arc::new(Container::new(parts));
    let pid = container.pid;
    pod.tools().events.send(TaskCreate { pid, ..event }).await;
    pod.put(Arc::clone(&container)).await;
    let (watched, tools) = (Arc::clone(&container), Arc::clone(pod));
    tokio::spawn(async move { watched.watch_memory(tools.tools()).await });
    let pod = Arc::clone(pod);
    tokio::spawn(async move {
        // The reaper lives as long as the shim.
        let code = exit.await.unwrap_or(255);
        container.ended(code, pod.tools()).await;
    });
    Ok(pid)
}

async fn make(pod: &Arc<Pod>, request: CreateTaskRequest) -> Result<Parts, Fault> {
    let mut phases = Phases::begin();
    if !request.checkpoint.is_empty() || !request.parent_checkpoint.is_empty() {
        return Err(Fault::Unsupported("wick does not restore checkpoints".to_owned()));
    }
    let bundle = PathBuf::from(&request.bundle);
    name_shim(&bundle);
    let spec = Spec::load(bundle.join("config.json"))
        .with_context(|| format!("read the config.json of {}", bundle.display()))?;
    let names = Names {
        stdin: request.stdin.clone(),
        stdout: request.stdout.clone(),
        stderr: request.stderr.clone(),
        terminal: request.terminal,
    };
    let kind = Kind::of(&spec);
    if kind == Kind::Ordinary {
        return ordinary::create(pod.tools(), &request, &spec, names).await;
    }
    let facts = Facts {
        id: request.id.clone(),
        namespace: pod.tools().namespace.clone(),
        rootfs: rootfs::path(&spec, &bundle),
        terminal: names.terminal,
        stdout: names.stdout.clone(),
        stderr: names.stderr.clone(),
    };
    let plan = plan::plan(kind, &spec, &facts)?;
    phases.done("plan");
    let member = Member {
        id: request.id.clone(),
        bundle: bundle.clone(),
        cgroup: plan.cgroup.relative().to_owned(),
        runc: None,
    };
    pod.tools().roster.add(member).context(LISTED)?;
    let cgroup = Cgroup::new(Arc::clone(&pod.tools().layout), plan.cgroup.clone());
    let (group, mounted) = (cgroup.clone(), bundle.join("rootfs"));
    let job = Job { request, bundle, kind, plan, names, cgroup, phases };
    let made = job.make(pod).await;
    if made.is_err() {
        let undone = spawn_blocking(move || {
            group.kill();
            if let Err(error) = group.remove() {
                tracing::warn!("after a failed Create: {error}");
            }
            rootfs::unmount_all(&mounted);
        });
        // It has nothing to say that is worth more than the first error.
        let _ = undone.await;
    }
    Ok(made?)
}

/// containerd writes this for the first container of a shim only. Of the others it would know the
/// runtime's name alone, and a shim outside of its PATH is not found by that: it would give the
/// container up, and start another beside the one that runs.
fn name_shim(bundle: &Path) {
    let (file, shim) = (bundle.join(SHIM_PATH), host::own_path());
    if let Some(shim) = shim.filter(|_| !file.exists())
        && let Err(error) = std::fs::write(&file, shim.as_os_str().as_encoded_bytes())
    {
        tracing::warn!("write {}: {error}", file.display());
    }
}

// === impl Job ===

impl Job {
    async fn make(self, pod: &Arc<Pod>) -> anyhow::Result<Parts> {
        let tools = Arc::clone(pod);
        let (job, mut born) = spawn_blocking(move || self.build(tools.tools())).await??;
        job.adjust_oom_score(born.child.pid);
        let told = Told {
            id: job.request.id.clone(),
            bundle: job.request.bundle.clone(),
            status: "creating",
            pid: born.child.pid,
        };
        let prepared = match hooks::run(&pod.tools().reaper, &job.plan.hooks.create, &told).await {
            Err(error) => Err(error),
            Ok(()) => {
                let pause = job.pause_order();
                let order = job.plan.order.clone();
                let told = spawn_blocking(move || {
                    let phases = match pause {
                        Some(order) => born.worker.prepare(&order),
                        None => born.worker.prepare(&order),
                    };
                    (born, phases)
                });
                let (back, phases) = told.await?;
                born = back;
                phases.map_err(anyhow::Error::from)
            }
        };
        match prepared {
            Ok(phases) => Ok(job.parts(born, phases)),
            Err(error) => {
                // In a shared pid namespace the group's end does not end it.
                let _ = pidfd_send_signal(&born.child.pidfd, Signal::KILL);
                Err(error)
            }
        }
    }

    /// Mount, make the group, clone. It blocks.
    fn build(mut self, tools: &Tools) -> anyhow::Result<(Self, Born)> {
        let (mounts, bundle) = (self.request.rootfs.clone(), self.bundle.clone());
        tools.cloner.call(move |_| rootfs::mount(&mounts, &bundle))??;
        self.phases.done("mount");
        if self.kind == Kind::Wasm {
            // Before anything of the package is opened.
            let Plan { asked, order, .. } = &self.plan;
            let rootfs = &self.request.rootfs;
            let admission = policy::check(&tools.host.policy, asked, order, rootfs)?;
            self.plan.order.sealed = admission == Admission::Sealed;
            self.phases.done("policy");
            self.offer(tools);
        }
        self.cgroup.create(&self.plan.limits)?;
        self.phases.done("cgroup");
        let stdio = match self.kind {
            Kind::Sandbox => Stdio::null(),
            Kind::Wasm | Kind::Ordinary => Stdio::open(&self.names),
        };
        let Stdio { ends, kept } = stdio.context("open the container's streams")?;
        let (ours, theirs) = Channel::pair().context("make a channel")?;
        let executable = match self.plan.pauses {
            true => host::own_executable()?,
            false => tools.host.executable()?.file()?,
        };
        let channel = theirs.stream().try_clone().context("duplicate the channel")?.into();
        drop(theirs);
        let birth = Birth {
            executable,
            args: self.args(),
            env: tools.host.environment(),
            stdio: ends,
            channel,
            entry: self.cgroup.entry()?,
            namespaces: self.plan.namespaces.clone(),
        };
        let child = tools.cloner.clone_process(birth)?;
        self.phases.done("clone");
        Ok((self, Born { child, worker: Worker::new(ours), kept }))
    }

    /// What `ps` shows.
    fn args(&self) -> Vec<CString> {
        let words: &[&str] = match self.plan.pauses {
            true => &["wick-pause", pause::ARGUMENT, &self.request.id],
            false => &["wick", "worker"],
        };
        // A word with a zero byte can't be one of ours.
        words.iter().map(|word| CString::new(*word).unwrap_or_default()).collect()
    }

    /// What the node has for this package: backends for graphs, and compiled code.
    fn offer(&mut self, tools: &Tools) {
        let order = &mut self.plan.order;
        let manifest = manifest(&order.rootfs, &order.args);
        if self.plan.wants_backends || manifest.as_ref().is_some_and(wants_backends) {
            order.backends.clone_from(&tools.host.backends);
        }
        order.accelerators = manifest.as_ref().map(accelerators).unwrap_or_default();
        self.phases.restart();
        if let Some(folder) = &tools.host.cache {
            let bare = order.args.first().is_some_and(|file| file.ends_with(".wasm"));
            let has_code = bare || manifest.is_some_and(|manifest| manifest.handler.is_some());
            match cache::fill(tools, folder, order, has_code, &self.request.rootfs) {
                Ok(image) => order.cache = image,
                // The worker compiles in its own memory then.
                Err(error) => {
                    tracing::warn!(container = self.request.id, "not compiled ahead: {error:#}");
                }
            }
            self.phases.done("cache");
        }
    }

    fn adjust_oom_score(&self, pid: u32) {
        let Some(score) = self.plan.oom_score_adj else { return };
        if let Err(error) = std::fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string())
        {
            // Lowering it needs a right that a nested node does not have.
            tracing::warn!("oom_score_adj stays the shim's instead of {score}: {error}");
        }
    }

    fn pause_order(&self) -> Option<PauseOrder> {
        let order = &self.plan.order;
        self.plan.pauses.then(|| PauseOrder {
            version: VERSION,
            rootfs: order.rootfs.clone(),
            hostname: order.hostname.clone().filter(|_| self.plan.names_its_host()),
            sysctl: self.plan.sysctl.clone(),
            uid: order.user.uid,
            gid: order.user.gid,
        })
    }

    fn parts(mut self, born: Born, phases: Vec<Phase>) -> Parts {
        self.phases.done("prepare");
        self.phases.add("worker", phases);
        Parts {
            id: self.request.id,
            bundle: self.bundle,
            names: self.names,
            cgroup: self.cgroup,
            pid: born.child.pid,
            pidfd: born.child.pidfd,
            kept: born.kept,
            engine: Engine::Ours {
                worker: Some(born.worker),
                hooks: self.plan.hooks,
                phases: self.phases,
            },
            console: None,
        }
    }
}

/// The backend that is part of the worker: nothing is loaded for it.
const BUILT_IN: &str = "tract";

/// The package's manifest, if the container runs one. A broken one is the worker's to report.
fn manifest(root: &Path, args: &[String]) -> Option<Manifest> {
    let file = args.first().map(Path::new).filter(|file| file.ends_with("wick.toml"))?;
    let text = rootfs::read_text(root, file, MAX_MANIFEST).ok()?;
    wick_package::parse(&text, file).ok()
}

/// Whether a graph of the package may run on a backend that is not built in.
fn wants_backends(manifest: &Manifest) -> bool {
    let built_in = |graph: &wick_package::GraphSpec| {
        graph.backend.as_ref().is_some_and(|backend| backend.as_str() == BUILT_IN)
    };
    !manifest.graphs.iter().all(built_in)
}

/// Kinds of device beside the CPU that the package's graphs may run on.
fn accelerators(manifest: &Manifest) -> Vec<String> {
    let wanted = |kind: &DeviceKind| manifest.graphs.iter().any(|g| g.devices.contains(kind));
    let others = DeviceKind::ALL.into_iter().filter(|kind| *kind != DeviceKind::Cpu);
    others.filter(wanted).map(|kind| kind.as_str().to_owned()).collect()
}

fn created(request: &CreateTaskRequest) -> TaskCreate {
    let io = TaskIO {
        stdin: request.stdin.clone(),
        stdout: request.stdout.clone(),
        stderr: request.stderr.clone(),
        terminal: request.terminal,
        ..Default::default()
    };
    TaskCreate {
        container_id: request.id.clone(),
        bundle: request.bundle.clone(),
        rootfs: request.rootfs.clone(),
        io: Some(io).into(),
        ..Default::default()
    }
}
