//! containerd's task API: each call is handed to the container that it is about.

use std::sync::Arc;

use anyhow::Context as _;
use async_trait::async_trait;
use containerd_shim::protos::api;
use containerd_shim::protos::shim_async::Task;
use containerd_shim::protos::types::task::ProcessInfo;
use containerd_shim::{TtrpcContext, TtrpcResult};
use tokio::task::spawn_blocking;

use crate::container::{Container, Exit};
use crate::exit::Fault;
use crate::pod::Pod;
use crate::{create, exec, steps};

/// The service.
pub struct Service {
    pod: Arc<Pod>,
}

// === impl Service ===

impl Service {
    pub fn new(pod: Arc<Pod>) -> Self {
        Self { pod }
    }

    async fn get(&self, id: &str) -> Result<Arc<Container>, Fault> {
        self.pod.get(id).await
    }
}

#[async_trait]
impl Task for Service {
    async fn create(
        &self,
        _: &TtrpcContext,
        request: api::CreateTaskRequest,
    ) -> TtrpcResult<api::CreateTaskResponse> {
        let id = request.id.clone();
        let created = create::create(&self.pod, request).await;
        if let Err(fault) = &created {
            tracing::error!(container = id, "not created: {fault}");
        }
        Ok(api::CreateTaskResponse { pid: created?, ..Default::default() })
    }

    async fn start(
        &self,
        _: &TtrpcContext,
        request: api::StartRequest,
    ) -> TtrpcResult<api::StartResponse> {
        let container = self.get(&request.id).await?;
        let started = if request.exec_id.is_empty() {
            steps::start(&container, self.pod.tools()).await
        } else {
            exec::start(&self.pod, &container, &request.exec_id).await
        };
        if let Err(fault) = &started {
            tracing::error!(container = request.id, "not started: {fault}");
        }
        Ok(api::StartResponse { pid: started?, ..Default::default() })
    }

    async fn state(
        &self,
        _: &TtrpcContext,
        request: api::StateRequest,
    ) -> TtrpcResult<api::StateResponse> {
        let container = self.get(&request.id).await?;
        if request.exec_id.is_empty() {
            return Ok(container.describe().await);
        }
        Ok(exec::describe(&container, &request.exec_id).await?)
    }

    async fn wait(
        &self,
        _: &TtrpcContext,
        request: api::WaitRequest,
    ) -> TtrpcResult<api::WaitResponse> {
        let container = self.get(&request.id).await?;
        let exit: Exit = if request.exec_id.is_empty() {
            container.wait().await
        } else {
            exec::wait(&container, &request.exec_id).await?
        };
        Ok(api::WaitResponse {
            exit_status: exit.code,
            exited_at: Some(exit.timestamp()).into(),
            ..Default::default()
        })
    }

    async fn kill(&self, _: &TtrpcContext, request: api::KillRequest) -> TtrpcResult<api::Empty> {
        let container = self.get(&request.id).await?;
        if request.exec_id.is_empty() {
            container.kill(request.signal, request.all).await?;
        } else {
            exec::kill(&container, &request.exec_id, request.signal).await?;
        }
        Ok(api::Empty::default())
    }

    async fn delete(
        &self,
        _: &TtrpcContext,
        request: api::DeleteRequest,
    ) -> TtrpcResult<api::DeleteResponse> {
        let container = self.get(&request.id).await?;
        if !request.exec_id.is_empty() {
            return Ok(exec::delete(&container, self.pod.tools(), &request.exec_id).await?);
        }
        Ok(steps::delete(&self.pod, &container).await?)
    }

    async fn pids(
        &self,
        _: &TtrpcContext,
        request: api::PidsRequest,
    ) -> TtrpcResult<api::PidsResponse> {
        let container = self.get(&request.id).await?;
        let info = |pid| ProcessInfo { pid, ..Default::default() };
        let processes = container.cgroup.processes().into_iter().map(info).collect();
        Ok(api::PidsResponse { processes, ..Default::default() })
    }

    async fn stats(
        &self,
        _: &TtrpcContext,
        request: api::StatsRequest,
    ) -> TtrpcResult<api::StatsResponse> {
        let group = self.get(&request.id).await?.cgroup.clone();
        let stats = spawn_blocking(move || group.stats()).await.context("read statistics");
        let stats =
            stats.map_err(Fault::from)?.context("encode statistics").map_err(Fault::from)?;
        Ok(api::StatsResponse { stats: Some(stats).into(), ..Default::default() })
    }

    async fn update(
        &self,
        _: &TtrpcContext,
        request: api::UpdateTaskRequest,
    ) -> TtrpcResult<api::Empty> {
        steps::update(&*self.get(&request.id).await?, &request).await?;
        Ok(api::Empty::default())
    }

    async fn pause(&self, _: &TtrpcContext, request: api::PauseRequest) -> TtrpcResult<api::Empty> {
        steps::pause(&*self.get(&request.id).await?, self.pod.tools()).await?;
        Ok(api::Empty::default())
    }

    async fn resume(
        &self,
        _: &TtrpcContext,
        request: api::ResumeRequest,
    ) -> TtrpcResult<api::Empty> {
        steps::resume(&*self.get(&request.id).await?, self.pod.tools()).await?;
        Ok(api::Empty::default())
    }

    async fn exec(
        &self,
        _: &TtrpcContext,
        request: api::ExecProcessRequest,
    ) -> TtrpcResult<api::Empty> {
        let container = self.get(&request.id).await?;
        exec::add(&container, self.pod.tools(), request).await?;
        Ok(api::Empty::default())
    }

    async fn resize_pty(
        &self,
        _: &TtrpcContext,
        request: api::ResizePtyRequest,
    ) -> TtrpcResult<api::Empty> {
        let container = self.get(&request.id).await?;
        exec::resize(&container, &request.exec_id, (request.width, request.height)).await?;
        Ok(api::Empty::default())
    }

    async fn close_io(
        &self,
        _: &TtrpcContext,
        request: api::CloseIORequest,
    ) -> TtrpcResult<api::Empty> {
        let container = self.get(&request.id).await?;
        if request.stdin {
            exec::close_stdin(&container, &request.exec_id).await?;
        }
        Ok(api::Empty::default())
    }

    async fn checkpoint(
        &self,
        _: &TtrpcContext,
        request: api::CheckpointTaskRequest,
    ) -> TtrpcResult<api::Empty> {
        self.get(&request.id).await?;
        Err(Fault::Unsupported("wick makes no checkpoints".to_owned()).into())
    }

    async fn connect(
        &self,
        _: &TtrpcContext,
        request: api::ConnectRequest,
    ) -> TtrpcResult<api::ConnectResponse> {
        let task = self.get(&request.id).await?;
        Ok(api::ConnectResponse {
            shim_pid: std::process::id(),
            task_pid: task.pid,
            ..Default::default()
        })
    }

    async fn shutdown(&self, _: &TtrpcContext, _: api::ShutdownRequest) -> TtrpcResult<api::Empty> {
        self.pod.end_if_empty().await;
        Ok(api::Empty::default())
    }
}
