//! One container: its process, its streams, and where it is in its life.
//!
//! The lock is held over each step, events of the step included, so containerd hears of them
//! in order: an exit that happens during Start is told after the start.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use containerd_shim::protos::api;
use containerd_shim::protos::events::task::{TaskExit, TaskOOM};
use containerd_shim::protos::protobuf::well_known_types::timestamp::Timestamp;
use rustix::process::{Signal, pidfd_send_signal};
use tokio::net::unix::pipe::Receiver;
use tokio::sync::{Mutex, MutexGuard, watch};
use tokio::task::spawn_blocking;

use crate::cgroup::Cgroup;
use crate::console::Console;
use crate::exec::Exec;
use crate::exit::Fault;
use crate::ordinary::Ordinary;
use crate::phases::Phases;
use crate::plan::Hooks;
use crate::pod::Tools;
use crate::state::State;
use crate::stdio::{Kept, Names};
use crate::worker::Worker;

/// How long a killed process may take to be gone.
const DEATH: Duration = Duration::from_secs(10);

/// A container of the pod.
pub struct Container {
    pub id: String,
    pub bundle: PathBuf,
    pub names: Names,
    pub cgroup: Cgroup,
    pub pid: u32,
    inner: Mutex<Inner>,
    exit: watch::Sender<Option<Exit>>,
}

/// What changes.
pub struct Inner {
    pub state: State,
    pub pidfd: OwnedFd,
    pub kept: Kept,
    pub engine: Engine,
    pub console: Option<Console>,
    pub execs: HashMap<String, Exec>,
    oom_kills_told: u64,
}

/// What runs it.
pub enum Engine {
    /// A process of ours. The worker is away while it is being started.
    Ours {
        worker: Option<Worker>,
        hooks: Hooks,
        phases: Phases,
    },
    Runc(Ordinary),
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    pub code: u32,
    pub at: SystemTime,
}

/// What a container is made of.
pub struct Parts {
    pub id: String,
    pub bundle: PathBuf,
    pub names: Names,
    pub cgroup: Cgroup,
    pub pid: u32,
    pub pidfd: OwnedFd,
    pub kept: Kept,
    pub engine: Engine,
    pub console: Option<Console>,
}

// === impl Container ===

impl Container {
    pub fn new(parts: Parts) -> Self {
        let (exit, _) = watch::channel(None);
        Self {
            id: parts.id,
            bundle: parts.bundle,
            names: parts.names,
            cgroup: parts.cgroup,
            pid: parts.pid,
            inner: Mutex::new(Inner {
                state: State::Created,
                pidfd: parts.pidfd,
                kept: parts.kept,
                engine: parts.engine,
                console: parts.console,
                execs: HashMap::new(),
                oom_kills_told: 0,
            }),
            exit,
        }
    }

    pub async fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().await
    }

    pub fn exited(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Returns when the process has ended, and containerd has been told.
    pub async fn wait(&self) -> Exit {
        wait_on(&self.exit).await
    }

    /// The process has ended: tell containerd once, what killed it first.
    pub async fn ended(&self, code: i32, tools: &Tools) {
        let mut inner = self.lock().await;
        self.tell_oom(&mut inner, tools).await;
        if let Engine::Ours { worker: Some(worker), .. } = &mut inner.engine
            && let Some(word) = worker.last_word()
        {
            tracing::warn!(container = self.id, "the worker failed: {word}");
        }
        // What the process left behind in a pid namespace that is not its own.
        if !self.cgroup.processes().is_empty() {
            let cgroup = self.cgroup.clone();
            let _ = spawn_blocking(move || cgroup.kill()).await;
        }
        inner.kept = Kept::default();
        inner.state = inner.state.ended();
        let exit = Exit::now(code);
        tools.events.send(exit.event(&self.id, &self.id, self.pid)).await;
        self.exit.send_replace(Some(exit));
    }

    /// Tell containerd of processes that the kernel killed for want of memory.
    pub async fn tell_oom(&self, inner: &mut Inner, tools: &Tools) {
        let kills = self.cgroup.oom_kills();
        if kills > inner.oom_kills_told {
            inner.oom_kills_told = kills;
            let event = TaskOOM { container_id: self.id.clone(), ..Default::default() };
            tools.events.send(event).await;
        }
    }

    /// Tell containerd of each process that the kernel kills for want of memory, until the
    /// container has ended; [`Self::ended`] counts once more.
    pub async fn watch_memory(&self, tools: &Tools) {
        // Not a pipe, but read as one: a descriptor that becomes readable.
        let notices = self.cgroup.oom_notices().and_then(Receiver::from_owned_fd_unchecked);
        let Ok(notices) = notices else {
            tracing::debug!(container = self.id, "no notices of the OOM killer");
            return;
        };
        loop {
            // Both arms are cancel-safe: readiness stays, and an exit is a state.
            let ready = tokio::select! {
                ready = notices.readable() => ready,
                _ = self.wait() => return,
            };
            let mut count = [0; 512];
            if ready.is_err() {
                return;
            }
            if notices.try_read(&mut count).is_err() {
                continue;
            }
            if !self.cgroup.exists() {
                return;
            }
            let mut inner = self.lock().await;
            self.tell_oom(&mut inner, tools).await;
        }
    }

    /// Send a signal to the process, or to all of the container.
    ///
    /// # Errors
    /// It has ended, or the signal is none.
    pub async fn kill(&self, signal: u32, all: bool) -> Result<(), Fault> {
        let finished = || Fault::NotFound(format!("the process of `{}` has finished", self.id));
        let inner = self.lock().await;
        if self.exited().is_some() {
            return Err(finished());
        }
        let named = i32::try_from(signal).ok().and_then(Signal::from_named_raw);
        let signal = match (named, &inner.engine) {
            (Some(named), _) => named,
            // A realtime signal: an init system's own way to be stopped.
            (None, Engine::Runc(ordinary)) => {
                return Ok(ordinary.signal(&self.id, signal).await?);
            }
            (None, Engine::Ours { .. }) => {
                return Err(Fault::Unsupported(format!("a worker takes no signal {signal}")));
            }
        };
        if all {
            let cgroup = self.cgroup.clone();
            let killed = move || match signal {
                Signal::KILL => cgroup.kill(),
                other => cgroup.signal(other),
            };
            return spawn_blocking(killed).await.map_err(|e| Fault::Failed(e.into()));
        }
        pidfd_send_signal(&inner.pidfd, signal).map_err(|_| finished())?;
        // A frozen process takes the signal when it thaws; one that kills must arrive.
        if signal == Signal::KILL && inner.state == State::Paused {
            let _ = self.cgroup.thaw();
        }
        Ok(())
    }

    /// Make sure that nothing of it runs.
    ///
    /// # Errors
    /// It does not die.
    pub async fn make_dead(&self) -> Result<Exit, Fault> {
        if self.exited().is_none() {
            let cgroup = self.cgroup.clone();
            {
                let inner = self.lock().await;
                // It may have ended just now.
                let _ = pidfd_send_signal(&inner.pidfd, Signal::KILL);
            }
            let _ = spawn_blocking(move || cgroup.kill()).await;
        }
        tokio::time::timeout(DEATH, self.wait()).await.map_err(|_| {
            Fault::Failed(anyhow::anyhow!("process {} of `{}` does not die", self.pid, self.id))
        })
    }

    /// Everything that containerd may ask about it.
    pub async fn describe(&self) -> api::StateResponse {
        let state = self.lock().await.state;
        let exit = self.exited();
        api::StateResponse {
            id: self.id.clone(),
            bundle: self.bundle.display().to_string(),
            pid: self.pid,
            status: state.status().into(),
            stdin: self.names.stdin.clone(),
            stdout: self.names.stdout.clone(),
            stderr: self.names.stderr.clone(),
            terminal: self.names.terminal,
            exit_status: exit.map_or(0, |e| e.code),
            exited_at: exit.map(|e| e.timestamp()).into(),
            ..Default::default()
        }
    }
}

/// Wait for an exit that comes once.
pub async fn wait_on(exit: &watch::Sender<Option<Exit>>) -> Exit {
    let mut receiver = exit.subscribe();
    // The sender is borrowed, so it is alive and this does not fail.
    let found = receiver.wait_for(Option::is_some).await.ok().and_then(|e| *e);
    found.unwrap_or_else(|| Exit::now(255))
}

// === impl Exit ===

impl Exit {
    pub fn now(code: i32) -> Self {
        Self { code: u32::try_from(code).unwrap_or(255), at: SystemTime::now() }
    }

    pub fn timestamp(&self) -> Timestamp {
        let since = self.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp {
            seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            nanos: since.subsec_nanos().cast_signed(),
            ..Default::default()
        }
    }

    /// `process` is the container's own id for its first process.
    pub fn event(&self, container: &str, process: &str, pid: u32) -> TaskExit {
        TaskExit {
            container_id: container.to_owned(),
            id: process.to_owned(),
            pid,
            exit_status: self.code,
            exited_at: Some(self.timestamp()).into(),
            ..Default::default()
        }
    }
}
