//! Containers that are not WebAssembly, side-cars and init containers among them: runc makes
//! them, and the shim is only what containerd talks to. Their streams are given to runc as
//! they are, so nothing is copied, but for a terminal (`console`).

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio as Redirect};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use containerd_shim::api::Options;
use containerd_shim::protos::api::CreateTaskRequest;
use containerd_shim::protos::protobuf::Message as _;
use oci_spec::runtime::{LinuxResources, Process, Spec};
use runc::options::{CreateOpts, DeleteOpts, ExecOpts, GlobalOpts};
use runc::{Command, Io, Runc, Spawner};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use crate::cgroup::Cgroup;
use crate::console::{Console, Listener};
use crate::container::{Engine, Parts};
use crate::create::LISTED;
use crate::exit::Fault;
use crate::plan::{self, Refusals};
use crate::pod::Tools;
use crate::reaper::Reaper;
use crate::roster::Member;
use crate::stdio::{Names, Stdio};
use crate::{hooks, rootfs};

/// Where runc keeps its containers, by containerd's namespace: where containerd's own shim has
/// them, so that the usual tools find them.
const ROOT: &str = "/run/containerd/runc";

/// runc's log, from which its error message comes.
const LOG: &str = "wick-runc.log";

/// The longest that one call of runc takes, a slow node included.
const CALL_LIMIT: Duration = Duration::from_secs(120);

/// What runc says after it has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How runc is called, also by a cleanup without a living shim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    binary: PathBuf,
    root: PathBuf,
    systemd: bool,
}

/// A container of runc's.
pub struct Ordinary {
    runc: Runc,
    bundle: PathBuf,
}

/// Where a process of runc's is started and what it becomes.
pub struct Started {
    pub pid: u32,
    /// None if it has ended already.
    pub pidfd: Option<OwnedFd>,
    pub kept: crate::stdio::Kept,
    pub console: Option<Console>,
}

/// Streams that a process takes over as they are.
#[derive(Debug)]
struct Direct([OwnedFd; 3]);

/// Runs runc with its exit seen by the one reaper.
#[derive(Debug)]
struct Reaped(Reaper);

/// Create an ordinary container.
///
/// # Errors
/// A mount or runc fails. Nothing is left then.
pub async fn create(
    tools: &Tools,
    request: &CreateTaskRequest,
    spec: &Spec,
    names: Names,
) -> Result<Parts, Fault> {
    let bundle = PathBuf::from(&request.bundle);
    let path = plan::cgroup_path(spec, &tools.namespace, &request.id);
    let cgroup = path.map_err(|refusal| Refusals(vec![refusal]))?;
    let settings = Settings::of(request, spec, &tools.namespace);
    let member = Member {
        id: request.id.clone(),
        bundle: bundle.clone(),
        cgroup: cgroup.relative().to_owned(),
        runc: Some(settings.clone()),
    };
    tools.roster.add(member).context(LISTED)?;
    let cgroup = Cgroup::new(Arc::clone(&tools.layout), cgroup);
    let (cloner, mounts, target) = (tools.cloner.clone(), request.rootfs.clone(), bundle.clone());
    let mounted = spawn_blocking(move || cloner.call(move |_| rootfs::mount(&mounts, &target)));
    mounted.await.context("mount")?.context("mount")??;
    let made = Ordinary::make(tools, &settings, &request.id, bundle.clone(), &names).await;
    let (ordinary, started) = match made {
        Ok(made) => made,
        Err(error) => {
            rootfs::unmount_all(&bundle.join("rootfs"));
            return Err(error.into());
        }
    };
    // The first process waits for its start, so it can only have been killed.
    let pidfd = started.pidfd.context("the container ended before it was started")?;
    Ok(Parts {
        id: request.id.clone(),
        bundle,
        names,
        cgroup,
        pid: started.pid,
        pidfd,
        kept: started.kept,
        engine: Engine::Runc(ordinary),
        console: started.console,
    })
}

// === impl Settings ===

impl Settings {
    fn of(request: &CreateTaskRequest, spec: &Spec, namespace: &str) -> Self {
        let ours = request.options.type_url.ends_with("runc.v1.Options");
        let options = Some(&request.options.value).filter(|_| ours);
        let options = options.and_then(|bytes| Options::parse_from_bytes(bytes).ok());
        let options = options.unwrap_or_default();
        let some = |text: String| (!text.is_empty()).then(|| PathBuf::from(text));
        let path = spec.linux().as_ref().and_then(|l| l.cgroups_path().as_ref());
        // `slice:prefix:name` means nothing to runc's other driver.
        let slice = path.is_some_and(|p| p.to_string_lossy().matches(':').count() == 2);
        Self {
            binary: some(options.binary_name).unwrap_or_else(|| "runc".into()),
            root: some(options.root).unwrap_or_else(|| ROOT.into()).join(namespace),
            systemd: options.systemd_cgroup || slice,
        }
    }

    /// Remove a container of a shim that is gone. It blocks.
    pub fn delete_forced(&self, id: &str) -> anyhow::Result<()> {
        let mut command = std::process::Command::new(&self.binary);
        command.arg("--root").arg(&self.root);
        if self.systemd {
            command.arg("--systemd-cgroup");
        }
        let output = command.args(["delete", "--force", id]).output().context("start runc")?;
        let words = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "runc delete: {}", words.trim());
        Ok(())
    }
}

// === impl Ordinary ===

impl Ordinary {
    async fn make(
        tools: &Tools,
        settings: &Settings,
        id: &str,
        bundle: PathBuf,
        names: &Names,
    ) -> anyhow::Result<(Self, Started)> {
        let mut options = GlobalOpts::new()
            .command(&settings.binary)
            .root(&settings.root)
            .systemd_cgroup(settings.systemd)
            .log(bundle.join(LOG))
            .log_json();
        options.custom_spawner(Arc::new(Reaped(tools.reaper.clone())));
        let runc = options.build().map_err(|_| anyhow::anyhow!("runc is not installed"))?;
        let ordinary = Self { runc, bundle };
        let pid_file = ordinary.bundle.join("init.pid");
        let streams = Streams::open(names)?;
        let mut create = CreateOpts::new().pid_file(&pid_file);
        create.io.clone_from(&streams.io);
        create.console_socket = streams.socket();
        let created = ordinary.runc.create(id, &ordinary.bundle, Some(&create)).await;
        drop(create);
        let started = match ordinary.explain(created) {
            Ok(_) => streams.finish(&pid_file).await,
            Err(error) => Err(error),
        };
        if started.is_err() {
            // What runc made before it failed. It may be nothing.
            let _ = ordinary.delete(id).await;
        }
        Ok((ordinary, started?))
    }

    pub async fn start(&self, id: &str) -> anyhow::Result<()> {
        let started = self.runc.start(id).await;
        self.explain(started).map(drop)
    }

    pub async fn signal(&self, id: &str, signal: u32) -> anyhow::Result<()> {
        let killed = self.runc.kill(id, signal, None).await;
        self.explain(killed)
    }

    pub async fn update(&self, id: &str, resources: &LinuxResources) -> anyhow::Result<()> {
        let updated = self.runc.update(id, resources).await;
        self.explain(updated)
    }

    /// Forced only if it must be: runc then sleeps 100 ms before it looks.
    pub async fn delete(&self, id: &str) -> anyhow::Result<()> {
        if self.runc.delete(id, None).await.is_ok() {
            return Ok(());
        }
        let deleted = self.runc.delete(id, Some(&DeleteOpts::new().force(true))).await;
        self.explain(deleted)
    }

    /// Start another process in the container.
    pub async fn exec(
        &self,
        id: &str,
        exec: &str,
        what: &(Process, Names),
    ) -> anyhow::Result<Started> {
        let (process, names) = what;
        let pid_file = self.bundle.join(format!("{exec}.pid"));
        let streams = Streams::open(names)?;
        let mut options = ExecOpts::new().pid_file(&pid_file).detach(true);
        options.io.clone_from(&streams.io);
        options.console_socket = streams.socket();
        let executed = self.runc.exec(id, process, Some(&options)).await;
        drop(options);
        self.explain(executed)?;
        let started = streams.finish(&pid_file).await;
        let _ = fs::remove_file(&pid_file);
        started
    }

    /// runc's own words: the last line of its log that is an error.
    fn explain<T>(&self, result: Result<T, runc::error::Error>) -> anyhow::Result<T> {
        #[derive(Deserialize)]
        struct Line {
            level: String,
            msg: String,
        }
        result.map_err(|error| {
            let log = fs::read_to_string(self.bundle.join(LOG)).unwrap_or_default();
            let lines = log.lines().rev().filter_map(|l| serde_json::from_str::<Line>(l).ok());
            match lines.into_iter().find(|line| line.level == "error") {
                Some(line) => anyhow::anyhow!("runc: {}", line.msg),
                // Its error can't be shared between threads, so only its words are kept.
                None => anyhow::anyhow!("{error}"),
            }
        })
    }
}

/// The streams of a process that runc is about to start.
struct Streams {
    io: Option<Arc<dyn Io>>,
    kept: crate::stdio::Kept,
    terminal: Option<(Listener, [OwnedFd; 3])>,
}

// === impl Streams ===

impl Streams {
    fn open(names: &Names) -> anyhow::Result<Self> {
        let Stdio { ends, kept } = Stdio::open(names).context("open the container's streams")?;
        if names.terminal {
            let listener = Listener::bind().context("make a console socket")?;
            return Ok(Self { io: None, kept, terminal: Some((listener, ends)) });
        }
        Ok(Self { io: Some(Arc::new(Direct(ends))), kept, terminal: None })
    }

    fn socket(&self) -> Option<PathBuf> {
        self.terminal.as_ref().map(|(listener, _)| listener.path().to_owned())
    }

    /// runc has started it: take the terminal and the process.
    async fn finish(self, pid_file: &Path) -> anyhow::Result<Started> {
        let console = match self.terminal {
            None => None,
            Some((listener, ends)) => {
                let attached = spawn_blocking(move || Console::attach(&listener, ends));
                Some(attached.await?.context("take the terminal from runc")?)
            }
        };
        let pid: u32 =
            fs::read_to_string(pid_file).context("read runc's pid file")?.trim().parse()?;
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).context("runc's pid")?;
        let pidfd = pidfd_open(raw, PidfdFlags::empty()).ok();
        Ok(Started { pid, pidfd, kept: self.kept, console })
    }
}

#[async_trait]
impl Io for Direct {
    async fn set(&self, command: &mut Command) -> std::io::Result<()> {
        let [stdin, stdout, stderr] = &self.0;
        command
            .stdin(Redirect::from(stdin.try_clone()?))
            .stdout(Redirect::from(stdout.try_clone()?))
            .stderr(Redirect::from(stderr.try_clone()?));
        Ok(())
    }

    async fn close_after_start(&self) {}
}

#[async_trait]
impl Spawner for Reaped {
    async fn execute(&self, command: Command) -> runc::Result<(ExitStatus, u32, String, String)> {
        use runc::error::Error;
        let mark = self.0.mark().await;
        let mut command = command.into_std();
        let mut child = command.spawn().map_err(Error::ProcessSpawnFailed)?;
        // It holds duplicates of the container's streams.
        drop(command);
        let exit = self.0.watch(child.id(), mark).await;
        let read = |stream: Option<Box<dyn std::io::Read + Send>>| {
            spawn_blocking(move || {
                let mut text = String::new();
                // Words that are not text are not shown.
                let _ = stream.map(|mut s| s.read_to_string(&mut text));
                text
            })
        };
        let stdout = read(child.stdout.take().map(|s| Box::new(s) as _));
        let stderr = read(child.stderr.take().map(|s| Box::new(s) as _));
        let code = tokio::time::timeout(CALL_LIMIT, exit).await;
        let code = code.map_err(Error::CommandTimeout)?.unwrap_or(255);
        // A container that inherited the pipe would hold it open for ever.
        let words = |task| async {
            tokio::time::timeout(LAST_WORDS, task)
                .await
                .ok()
                .and_then(Result::ok)
                .unwrap_or_default()
        };
        Ok((hooks::status_of(code), child.id(), words(stdout).await, words(stderr).await))
    }
}
