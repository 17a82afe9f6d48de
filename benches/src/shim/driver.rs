//! containerd's side of a shim: started by its `start` action, called over ttrpc, its events
//! taken and forgotten.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use async_trait::async_trait;
use containerd_shim::protos::api::{
    CreateTaskRequest, DeleteRequest, Empty, ForwardRequest, KillRequest, ShutdownRequest,
    StartRequest, WaitRequest,
};
use containerd_shim::protos::shim_async::{Client, Events, TaskClient, create_events};
use containerd_shim::protos::ttrpc::asynchronous::Server;
use containerd_shim::protos::ttrpc::context::{Context, with_timeout};
use containerd_shim::{TtrpcContext, TtrpcResult};
use tokio::process::Command;

use super::bundle::Bundle;

/// Longest call.
const PATIENCE: Duration = Duration::from_secs(30);

const NAMESPACE: &str = "wick-bench";

const SIGKILL: u32 = 9;

/// containerd, as far as a shim sees it.
pub struct Driver {
    folder: PathBuf,
    path: String,
    environment: Vec<(String, PathBuf)>,
    /// Serves as long as it lives.
    _events: Server,
}

/// A shim that runs.
pub struct Shim {
    task: TaskClient,
    id: String,
    /// How long its `start` action took, in milliseconds.
    pub start_ms: f64,
}

/// How long the calls of one task took, in milliseconds.
pub struct Times {
    pub create_ms: f64,
    pub start_ms: f64,
}

struct Deaf;

#[async_trait]
impl Events for Deaf {
    async fn forward(&self, _: &TtrpcContext, _: ForwardRequest) -> TtrpcResult<Empty> {
        Ok(Empty::default())
    }
}

// === impl Driver ===

impl Driver {
    /// `runc` is the folder that PATH begins with; `environment` is for the shims.
    pub async fn new(
        folder: &Path,
        runc: &Path,
        environment: Vec<(String, PathBuf)>,
    ) -> anyhow::Result<Self> {
        let address = format!("unix://{}", folder.join("events.sock").display());
        let mut server =
            Server::new().bind(&address)?.register_service(create_events(Arc::new(Deaf)));
        server.start().await?;
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}", runc.display());
        Ok(Self { folder: folder.to_owned(), path, environment, _events: server })
    }

    /// Start the shim of a bundle.
    pub async fn start(&self, shim: &Path, bundle: &Bundle) -> anyhow::Result<Shim> {
        let begin = Instant::now();
        let output = self.command(shim, bundle).arg("start").output().await?;
        let start_ms = millis(begin);
        let stderr = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "{}: {stderr}", shim.display());
        let address = address(&output.stdout).with_context(|| {
            format!("{} answered {:?}", shim.display(), String::from_utf8_lossy(&output.stdout))
        })?;
        let client = Client::connect(&address).await.map_err(|e| anyhow!("{address}: {e}"))?;
        Ok(Shim { task: TaskClient::new(client), id: bundle.id.clone(), start_ms })
    }

    /// What containerd calls when a shim is gone.
    pub async fn clean(&self, shim: &Path, bundle: &Bundle) -> anyhow::Result<()> {
        let output = self.command(shim, bundle).arg("delete").output().await?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "delete: {}: {stderr}", shim.display());
        Ok(())
    }

    fn command(&self, shim: &Path, bundle: &Bundle) -> Command {
        let mut command = Command::new(shim);
        command
            .args(["-namespace", NAMESPACE, "-id", &bundle.id, "-publish-binary", "/bin/true"])
            .args([Path::new("-address"), &self.folder.join("containerd.sock")])
            .args([Path::new("-bundle"), &bundle.folder])
            .current_dir(&bundle.folder)
            .stdin(Stdio::null())
            .env("PATH", &self.path)
            .env("MAX_SHIM_VERSION", "3")
            .env("TTRPC_ADDRESS", self.folder.join("events.sock"))
            .env("GRPC_ADDRESS", self.folder.join("containerd.sock"))
            .env("NAMESPACE", NAMESPACE)
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

// === impl Shim ===

impl Shim {
    /// Create and Start.
    pub async fn run(&self, bundle: &Bundle) -> anyhow::Result<Times> {
        let create = CreateTaskRequest {
            id: self.id.clone(),
            bundle: bundle.folder.display().to_string(),
            rootfs: vec![bundle.rootfs.clone()],
            ..Default::default()
        };
        let begin = Instant::now();
        self.task.create(context(), &create).await.context("Create")?;
        let create_ms = millis(begin);
        let begin = Instant::now();
        let start = StartRequest { id: self.id.clone(), ..Default::default() };
        self.task.start(context(), &start).await.context("Start")?;
        Ok(Times { create_ms, start_ms: millis(begin) })
    }

    pub async fn kill(&self) -> anyhow::Result<()> {
        let kill = KillRequest { id: self.id.clone(), signal: SIGKILL, ..Default::default() };
        self.task.kill(context(), &kill).await.context("Kill")?;
        Ok(())
    }

    /// Wait for the task's end and delete it; the shim ends too.
    pub async fn finish(&self) -> anyhow::Result<u32> {
        let wait = WaitRequest { id: self.id.clone(), ..Default::default() };
        self.task.wait(context(), &wait).await.context("Wait")?;
        let delete = DeleteRequest { id: self.id.clone(), ..Default::default() };
        let deleted = self.task.delete(context(), &delete).await.context("Delete")?;
        let shutdown = ShutdownRequest { id: self.id.clone(), now: true, ..Default::default() };
        // A shim may be gone before it has answered.
        let _ = self.task.shutdown(context(), &shutdown).await;
        Ok(deleted.exit_status)
    }
}

/// The address in what a shim prints: text, JSON or protobuf, by its version.
fn address(printed: &[u8]) -> anyhow::Result<String> {
    const SCHEME: &[u8] = b"unix://";
    let at = printed.windows(SCHEME.len()).position(|window| window == SCHEME);
    let Some(at) = at else { bail!("no address") };
    let ends = |byte: &u8| !byte.is_ascii_graphic() || *byte == b'"';
    let rest = &printed[at..];
    let end = rest.iter().position(ends).unwrap_or(rest.len());
    Ok(String::from_utf8_lossy(&rest[..end]).into_owned())
}

fn context() -> Context {
    with_timeout(PATIENCE.as_nanos() as i64)
}

pub fn millis(begin: Instant) -> f64 {
    begin.elapsed().as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_found_in_each_form() {
        let forms: [&[u8]; 3] = [
            b"unix:///run/a.sock",
            br#"{"version":3,"address":"unix:///run/a.sock","protocol":"ttrpc"}"#,
            b"\x08\x03\x12\x12unix:///run/a.sock\x1a\x05ttrpc",
        ];
        for form in forms {
            assert_eq!(address(form).unwrap(), "unix:///run/a.sock");
        }
        assert!(address(b"").is_err());
    }
}
