//! The steps of a container after Create: start, pause, resume, new limits, and the end.

use std::sync::Arc;

use anyhow::Context as _;
use containerd_shim::protos::api::{DeleteResponse, UpdateTaskRequest};
use containerd_shim::protos::events::task::{TaskDelete, TaskPaused, TaskResumed, TaskStart};
use oci_spec::runtime::{Hook, LinuxResources};
use rustix::process::{Signal, pidfd_send_signal};
use tokio::task::spawn_blocking;

use crate::cgroup::Limits;
use crate::container::{Container, Engine, Inner};
use crate::exit::Fault;
use crate::hooks::{self, Told};
use crate::pod::{Pod, Tools};
use crate::rootfs;
use crate::worker::{Worker, WorkerError};

/// Let the process run, and tell containerd when its port listens.
///
/// # Errors
/// It is not waiting for a start, or it fails to.
pub async fn start(container: &Container, tools: &Tools) -> Result<u32, Fault> {
    let mut inner = container.lock().await;
    let next = inner.state.start()?;
    let poststart = match &mut inner.engine {
        Engine::Runc(ordinary) => {
            ordinary.start(&container.id).await?;
            Vec::new()
        }
        Engine::Ours { worker, hooks, .. } => {
            let hooks = hooks.poststart.clone();
            let taken = worker.take().context("the worker is being started")?;
            start_ours(container, &mut inner, taken).await?;
            hooks
        }
    };
    inner.state = next;
    let event =
        TaskStart { container_id: container.id.clone(), pid: container.pid, ..Default::default() };
    tools.events.send(event).await;
    run_after(container, tools, &poststart, "running").await;
    Ok(container.pid)
}

async fn start_ours(
    container: &Container,
    inner: &mut Inner,
    mut taken: Worker,
) -> Result<(), Fault> {
    if let Engine::Ours { phases, .. } = &mut inner.engine {
        phases.restart();
    }
    let started = spawn_blocking(move || {
        let started = taken.start();
        (taken, started)
    });
    let (back, started) = started.await.context("start the worker")?;
    let Engine::Ours { worker, phases, .. } = &mut inner.engine else { return Ok(()) };
    *worker = Some(back);
    let (addr, theirs) = match started {
        Ok(started) => started,
        Err(error) => {
            // A process that did not start must not go on by itself later.
            let _ = pidfd_send_signal(&inner.pidfd, Signal::KILL);
            return Err(Fault::Failed(explained(error)));
        }
    };
    phases.done("start");
    phases.add("worker", theirs);
    phases.save(&container.bundle);
    phases.trace(&container.id);
    let addr = addr.as_deref().unwrap_or("none");
    tracing::info!(container = container.id, addr, "started: {}", phases.line());
    Ok(())
}

fn explained(error: WorkerError) -> anyhow::Error {
    anyhow::Error::from(error).context("the worker did not start")
}

/// poststart and poststop hooks: their failure is told and changes nothing, as OCI says.
async fn run_after(container: &Container, tools: &Tools, hooks: &[Hook], status: &'static str) {
    let told = Told {
        id: container.id.clone(),
        bundle: container.bundle.display().to_string(),
        status,
        pid: if status == "stopped" { 0 } else { container.pid },
    };
    if let Err(error) = hooks::run(&tools.reaper, hooks, &told).await {
        tracing::warn!(container = container.id, "{error:#}");
    }
}

/// # Errors
/// It does not run, or the node can't freeze.
pub async fn pause(container: &Container, tools: &Tools) -> Result<(), Fault> {
    let mut inner = container.lock().await;
    let next = inner.state.pause()?;
    container.cgroup.freeze().map_err(anyhow::Error::from)?;
    inner.state = next;
    let event = TaskPaused { container_id: container.id.clone(), ..Default::default() };
    tools.events.send(event).await;
    Ok(())
}

/// # Errors
/// It is not paused.
pub async fn resume(container: &Container, tools: &Tools) -> Result<(), Fault> {
    let mut inner = container.lock().await;
    let next = inner.state.resume()?;
    container.cgroup.thaw().map_err(anyhow::Error::from)?;
    inner.state = next;
    let event = TaskResumed { container_id: container.id.clone(), ..Default::default() };
    tools.events.send(event).await;
    Ok(())
}

/// New limits in place.
///
/// # Errors
/// The request is not a set of resources, or the kernel refuses a limit.
pub async fn update(container: &Container, request: &UpdateTaskRequest) -> Result<(), Fault> {
    let resources: LinuxResources =
        serde_json::from_slice(&request.resources.value).context("read the new limits")?;
    let inner = container.lock().await;
    match &inner.engine {
        Engine::Runc(ordinary) => ordinary.update(&container.id, &resources).await?,
        Engine::Ours { .. } => {
            let (group, limits) = (container.cgroup.clone(), Limits::for_update(resources));
            let applied = spawn_blocking(move || group.apply(&limits)).await;
            applied.context("set the new limits")?.map_err(anyhow::Error::from)?;
        }
    }
    Ok(())
}

/// End a container, if it has not ended, and remove everything of it.
///
/// # Errors
/// It does not die, or its control group can't be removed.
pub async fn delete(pod: &Arc<Pod>, container: &Container) -> Result<DeleteResponse, Fault> {
    let tools = pod.tools();
    let exit = container.make_dead().await?;
    let inner = container.lock().await;
    let poststop = match &inner.engine {
        Engine::Runc(ordinary) => {
            if let Err(error) = ordinary.delete(&container.id).await {
                tracing::warn!(container = container.id, "{error:#}");
            }
            Vec::new()
        }
        Engine::Ours { hooks, .. } => hooks.poststop.clone(),
    };
    let (group, root) = (container.cgroup.clone(), container.bundle.join("rootfs"));
    let removed = spawn_blocking(move || {
        let removed = group.remove();
        rootfs::unmount_all(&root);
        removed
    });
    removed.await.context("remove the container")?.map_err(anyhow::Error::from)?;
    run_after(container, tools, &poststop, "stopped").await;
    pod.forget(&container.id).await;
    let event = TaskDelete {
        container_id: container.id.clone(),
        pid: container.pid,
        exit_status: exit.code,
        exited_at: Some(exit.timestamp()).into(),
        ..Default::default()
    };
    tools.events.send(event).await;
    Ok(DeleteResponse {
        pid: container.pid,
        exit_status: exit.code,
        exited_at: Some(exit.timestamp()).into(),
        ..Default::default()
    })
}
