//! Other processes in a container of runc's: `kubectl exec` into a side-car, and its probes.
//! A container of ours has no programs to run, and says so.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::Context as _;
use containerd_shim::protos::api::{self, ExecProcessRequest};
use containerd_shim::protos::events::task::{TaskDelete, TaskExecAdded, TaskExecStarted};
use oci_spec::runtime::Process;
use rustix::process::{Signal, pidfd_send_signal};
use tokio::sync::watch;

use crate::console::Console;
use crate::container::{Container, Engine, Exit};
use crate::exit::Fault;
use crate::pod::{Pod, Tools};
use crate::state::State;
use crate::stdio::{Kept, Names};

/// Processes that containerd may add to one container and not yet have deleted.
const MAX_EXECS: usize = 256;

/// A process beside the first.
pub struct Exec {
    what: (Process, Names),
    pub state: State,
    pub exit: Arc<watch::Sender<Option<Exit>>>,
    alive: Option<Alive>,
}

/// Its process.
struct Alive {
    pid: u32,
    pidfd: Option<OwnedFd>,
    kept: Kept,
    console: Option<Console>,
}

/// # Errors
/// The container is one of ours, the name is taken, or there are too many.
pub async fn add(
    container: &Container,
    tools: &Tools,
    request: ExecProcessRequest,
) -> Result<(), Fault> {
    let mut inner = container.lock().await;
    if let Engine::Ours { .. } = inner.engine {
        return Err(Fault::Unsupported(
            "a wick container has no shell and runs no other programs: use `kubectl logs`, its \
             HTTP endpoints, or an ephemeral container (`kubectl debug`)"
                .to_owned(),
        ));
    }
    let id = request.exec_id;
    if inner.execs.contains_key(&id) {
        return Err(Fault::Exists(format!("the process `{id}` exists")));
    }
    if inner.execs.len() >= MAX_EXECS {
        return Err(Fault::Unsupported(format!("more than {MAX_EXECS} processes")));
    }
    let process: Process =
        serde_json::from_slice(&request.spec.value).context("read the process to run")?;
    let names = Names {
        stdin: request.stdin,
        stdout: request.stdout,
        stderr: request.stderr,
        terminal: request.terminal,
    };
    let exit = Arc::new(watch::channel(None).0);
    let exec = Exec { what: (process, names), state: State::Created, exit, alive: None };
    inner.execs.insert(id.clone(), exec);
    let container_id = container.id.clone();
    tools.events.send(TaskExecAdded { container_id, exec_id: id, ..Default::default() }).await;
    Ok(())
}

/// # Errors
/// There is no such process, it was started, or runc fails.
pub async fn start(pod: &Arc<Pod>, container: &Arc<Container>, id: &str) -> Result<u32, Fault> {
    let tools = pod.tools();
    let mut inner = container.lock().await;
    let missing = || Fault::no_process(&container.id, id);
    let exec = inner.execs.get(id).ok_or_else(missing)?;
    let next = exec.state.start()?;
    let Engine::Runc(ordinary) = &inner.engine else { return Err(missing()) };
    let mark = tools.reaper.mark().await;
    let started = ordinary.exec(&container.id, id, &exec.what).await?;
    let exit = tools.reaper.watch(started.pid, mark).await;
    let pid = started.pid;
    let exec = inner.execs.get_mut(id).ok_or_else(missing)?;
    let (pidfd, kept, console) = (started.pidfd, started.kept, started.console);
    exec.alive = Some(Alive { pid, pidfd, kept, console });
    exec.state = next;
    let event = TaskExecStarted {
        container_id: container.id.clone(),
        exec_id: id.to_owned(),
        pid,
        ..Default::default()
    };
    tools.events.send(event).await;
    drop(inner);
    let (pod, container, id) = (Arc::clone(pod), Arc::clone(container), id.to_owned());
    tokio::spawn(async move {
        let code = exit.await.unwrap_or(255);
        ended(&container, pod.tools(), &id, code).await;
    });
    Ok(pid)
}

async fn ended(container: &Container, tools: &Tools, id: &str, code: i32) {
    let mut inner = container.lock().await;
    let Some(exec) = inner.execs.get_mut(id) else { return };
    exec.state = exec.state.ended();
    let pid = exec.alive.as_mut().map_or(0, |alive| {
        alive.kept = Kept::default();
        alive.pid
    });
    let exit = Exit::now(code);
    tools.events.send(exit.event(&container.id, id, pid)).await;
    exec.exit.send_replace(Some(exit));
}

/// # Errors
/// There is no such process, or it has ended.
pub async fn kill(container: &Container, id: &str, signal: u32) -> Result<(), Fault> {
    let inner = container.lock().await;
    let exec = inner.execs.get(id).ok_or_else(|| Fault::no_process(&container.id, id))?;
    let finished = || Fault::NotFound(format!("the process `{id}` has finished or not started"));
    let pidfd = exec.alive.as_ref().and_then(|alive| alive.pidfd.as_ref()).ok_or_else(finished)?;
    let named = i32::try_from(signal).ok().and_then(Signal::from_named_raw);
    let signal = named.ok_or_else(|| Fault::Unsupported(format!("signal {signal}")))?;
    pidfd_send_signal(pidfd, signal).map_err(|_| finished())
}

/// # Errors
/// There is no such process, or it runs.
pub async fn delete(
    container: &Container,
    tools: &Tools,
    id: &str,
) -> Result<api::DeleteResponse, Fault> {
    let mut inner = container.lock().await;
    let exec = inner.execs.get(id).ok_or_else(|| Fault::no_process(&container.id, id))?;
    if exec.state == State::Running {
        return Err(Fault::Illegal(crate::state::Illegal { from: exec.state, step: "delete" }));
    }
    let pid = exec.alive.as_ref().map_or(0, |alive| alive.pid);
    let exit = (*exec.exit.borrow()).unwrap_or_else(|| Exit::now(0));
    inner.execs.remove(id);
    let event = TaskDelete {
        container_id: container.id.clone(),
        id: id.to_owned(),
        pid,
        exit_status: exit.code,
        exited_at: Some(exit.timestamp()).into(),
        ..Default::default()
    };
    tools.events.send(event).await;
    Ok(api::DeleteResponse {
        pid,
        exit_status: exit.code,
        exited_at: Some(exit.timestamp()).into(),
        ..Default::default()
    })
}

/// # Errors
/// There is no such process.
pub async fn describe(container: &Container, id: &str) -> Result<api::StateResponse, Fault> {
    let inner = container.lock().await;
    let exec = inner.execs.get(id).ok_or_else(|| Fault::no_process(&container.id, id))?;
    let exit = *exec.exit.borrow();
    let names = &exec.what.1;
    Ok(api::StateResponse {
        id: container.id.clone(),
        exec_id: id.to_owned(),
        bundle: container.bundle.display().to_string(),
        pid: exec.alive.as_ref().map_or(0, |alive| alive.pid),
        status: exec.state.status().into(),
        stdin: names.stdin.clone(),
        stdout: names.stdout.clone(),
        stderr: names.stderr.clone(),
        terminal: names.terminal,
        exit_status: exit.map_or(0, |e| e.code),
        exited_at: exit.map(|e| e.timestamp()).into(),
        ..Default::default()
    })
}

/// # Errors
/// There is no such process.
pub async fn wait(container: &Container, id: &str) -> Result<Exit, Fault> {
    let exit = {
        let inner = container.lock().await;
        let exec = inner.execs.get(id).ok_or_else(|| Fault::no_process(&container.id, id))?;
        Arc::clone(&exec.exit)
    };
    Ok(crate::container::wait_on(&exit).await)
}

/// # Errors
/// There is no such process, or its terminal is gone.
pub async fn resize(container: &Container, id: &str, size: (u32, u32)) -> Result<(), Fault> {
    let inner = container.lock().await;
    let console = if id.is_empty() {
        inner.console.as_ref()
    } else {
        let exec = inner.execs.get(id).ok_or_else(|| Fault::no_process(&container.id, id))?;
        exec.alive.as_ref().and_then(|alive| alive.console.as_ref())
    };
    // A process without a terminal has no size to set.
    let Some(console) = console else { return Ok(()) };
    Ok(console.resize(size.0, size.1).context("resize the terminal")?)
}

/// Nothing more comes on the process's stdin.
///
/// # Errors
/// There is no such process.
pub async fn close_stdin(container: &Container, id: &str) -> Result<(), Fault> {
    let mut inner = container.lock().await;
    if id.is_empty() {
        inner.kept.stdin = None;
        return Ok(());
    }
    let exec = inner.execs.get_mut(id).ok_or_else(|| Fault::no_process(&container.id, id))?;
    if let Some(alive) = &mut exec.alive {
        alive.kept.stdin = None;
    }
    Ok(())
}
