//! A shim under test, and containerd's side of it: the ttrpc client and the event service.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use containerd_shim::protos::api::{self, CreateTaskRequest, ForwardRequest};
use containerd_shim::protos::bootstrap_api::BootstrapResult;
use containerd_shim::protos::events::task::{TaskDelete, TaskExit};
use containerd_shim::protos::protobuf::Message as _;
use containerd_shim::protos::shim_async::{Client, Events, TaskClient, create_events};
use containerd_shim::protos::ttrpc::asynchronous::Server;
use containerd_shim::protos::ttrpc::context::{Context, with_timeout};
use containerd_shim::protos::types::mount::Mount;
use containerd_shim::{TtrpcContext, TtrpcResult};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::sync::Mutex;

use crate::{spec, tools};

pub const NAMESPACE: &str = "wick-test";

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// containerd's side: a folder, an event service and a client.
pub struct Containerd {
    /// The shim's executable. `WICK_TEST_SHIM` names another build of it, such as the static one.
    pub shim: PathBuf,
    pub folder: tempfile::TempDir,
    pub runtime: Runtime,
    heard: Arc<Mutex<Vec<String>>>,
    /// Serves as long as it lives.
    _events: Server,
}

/// A running shim.
pub struct Shim<'a> {
    pub containerd: &'a Containerd,
    pub address: String,
    pub task: TaskClient,
}

struct Sink(Arc<Mutex<Vec<String>>>);

#[async_trait]
impl Events for Sink {
    async fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> TtrpcResult<api::Empty> {
        let envelope = &request.envelope;
        let word = envelope.topic.trim_start_matches("/tasks/");
        let bytes = &envelope.event.value;
        let line = match word {
            "exit" => {
                let event = TaskExit::parse_from_bytes(bytes).unwrap();
                format!("{} exit {} {}", event.container_id, event.id, event.exit_status)
            }
            "delete" => {
                let event = TaskDelete::parse_from_bytes(bytes).unwrap();
                format!("{} delete {}", event.container_id, event.exit_status)
            }
            // All others have the container's id as their first field.
            _ => {
                let event = api::StartRequest::parse_from_bytes(bytes);
                format!("{} {word}", event.map(|e| e.id).unwrap_or_default())
            }
        };
        self.0.lock().await.push(line);
        Ok(api::Empty::default())
    }
}

// === impl Containerd ===

impl Containerd {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let heard = Arc::default();
        let sink = Sink(Arc::clone(&heard));
        let address = format!("unix://{}", folder.path().join("events.sock").display());
        let events = runtime.block_on(async {
            let mut server = Server::new()
                .bind(&address)
                .unwrap()
                .register_service(create_events(Arc::new(sink)));
            server.start().await.unwrap();
            server
        });
        let built = || env!("CARGO_BIN_EXE_containerd-shim-wick-v1").into();
        let shim = std::env::var_os("WICK_TEST_SHIM").map_or_else(built, PathBuf::from);
        Self { shim, folder, runtime, heard, _events: events }
    }

    pub fn bundle(&self, id: &str) -> PathBuf {
        self.folder.path().join(id)
    }

    /// Call an action of the shim as containerd before 2.3 does.
    pub fn action(&self, id: &str, action: &str) -> Output {
        let events = self.folder.path().join("events.sock");
        let mut command = Command::new(&self.shim);
        command
            .args(["-namespace", NAMESPACE, "-id", id, "-publish-binary", "/bin/false"])
            .args([Path::new("-address"), &self.folder.path().join("containerd.sock")])
            .args([Path::new("-bundle"), &self.bundle(id)])
            .arg("-debug")
            .arg(action)
            .current_dir(self.bundle(id))
            .stdin(Stdio::null())
            .env("PATH", tools::path())
            .env("TTRPC_ADDRESS", events)
            .env("WICK_WORKER", std::env::current_exe().unwrap())
            .env("WICK_CACHE", self.folder.path().join("cache"))
            .env("WICK_SIGNATURES", self.folder.path().join("signatures"));
        let policy = self.folder.path().join("policy.toml");
        if policy.exists() {
            command.env("WICK_POLICY", policy);
        }
        command.output().unwrap()
    }

    /// Start the shim of a bundle, or find its pod's.
    pub fn start(&self, id: &str, spec: &Value) -> Shim<'_> {
        spec::bundle(&self.bundle(id), spec);
        let output = self.action(id, "start");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "start failed: {stderr}");
        // containerd's own shim answers with a message whatever it is asked by.
        let message = BootstrapResult::parse_from_bytes(&output.stdout);
        let address = message.map(|m| m.address).ok().filter(|a| a.starts_with("unix://"));
        let address = address.unwrap_or_else(|| String::from_utf8(output.stdout).unwrap());
        let client = self.runtime.block_on(Client::connect(&address)).unwrap();
        Shim { containerd: self, task: TaskClient::new(client), address }
    }

    /// The events of a container, when there are `count` of them.
    pub fn events(&self, id: &str, count: usize) -> Vec<String> {
        let begun = Instant::now();
        loop {
            let heard = self.runtime.block_on(self.heard.lock()).clone();
            let prefix = format!("{id} ");
            let mut words = heard.iter().filter_map(|l| l.strip_prefix(&prefix)).map(str::to_owned);
            let found: Vec<String> = words.by_ref().collect();
            if found.len() >= count || begun.elapsed() > PATIENCE {
                return found;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What a shim has logged.
    pub fn log(&self, id: &str) -> String {
        std::fs::read_to_string(self.bundle(id).join("log")).unwrap_or_default()
    }
}

impl Drop for Containerd {
    /// A case that has failed leaves nothing for the next one to stumble over.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let folder = self.folder.path().display().to_string();
        kill_shims(self.folder.path());
        for bundle in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            if bundle.path().join("config.json").exists() {
                self.action(&bundle.file_name().to_string_lossy(), "delete");
            }
        }
    }
}

// === impl Shim ===

impl Shim<'_> {
    pub fn wait_for<T>(&self, future: impl Future<Output = T>) -> T {
        let limited = async { tokio::time::timeout(PATIENCE, future).await };
        self.containerd.runtime.block_on(limited).expect("an answer in time")
    }

    pub fn create(&self, id: &str) -> Result<u32, String> {
        self.create_with(CreateTaskRequest { id: id.to_owned(), ..Default::default() })
    }

    pub fn create_with(&self, mut request: CreateTaskRequest) -> Result<u32, String> {
        request.bundle = self.containerd.bundle(&request.id).display().to_string();
        let answer = self.wait_for(self.task.create(context(), &request));
        answer.map(|a| a.pid).map_err(|e| e.to_string())
    }

    pub fn run(&self, id: &str) -> Result<u32, String> {
        let request = api::StartRequest { id: id.to_owned(), ..Default::default() };
        let answer = self.wait_for(self.task.start(context(), &request));
        answer.map(|a| a.pid).map_err(|e| e.to_string())
    }

    pub fn kill(&self, id: &str, signal: u32) -> Result<(), String> {
        let request = api::KillRequest { id: id.to_owned(), signal, ..Default::default() };
        let answer = self.wait_for(self.task.kill(context(), &request));
        answer.map(drop).map_err(|e| e.to_string())
    }

    /// The exit code, when there is one.
    pub fn wait(&self, id: &str) -> u32 {
        let request = api::WaitRequest { id: id.to_owned(), ..Default::default() };
        self.wait_for(self.task.wait(context(), &request)).unwrap().exit_status
    }

    pub fn delete(&self, id: &str) -> Result<u32, String> {
        let request = api::DeleteRequest { id: id.to_owned(), ..Default::default() };
        let answer = self.wait_for(self.task.delete(context(), &request));
        answer.map(|a| a.exit_status).map_err(|e| e.to_string())
    }

    pub fn status(&self, id: &str) -> Result<api::StateResponse, String> {
        let request = api::StateRequest { id: id.to_owned(), ..Default::default() };
        self.wait_for(self.task.state(context(), &request)).map_err(|e| e.to_string())
    }

    pub fn shim_pid(&self, id: &str) -> u32 {
        let request = api::ConnectRequest { id: id.to_owned(), ..Default::default() };
        self.wait_for(self.task.connect(context(), &request)).unwrap().shim_pid
    }

    pub fn shutdown(&self) {
        let request = api::ShutdownRequest::default();
        // The shim may be gone before it has answered.
        let _ = self.wait_for(self.task.shutdown(context(), &request));
    }
}

pub fn context() -> Context {
    with_timeout(i64::try_from(PATIENCE.as_nanos()).unwrap())
}

/// Kill the shims that a failed case has left, and with them their containers.
pub fn kill_shims(folder: &Path) {
    let folder = folder.display().to_string();
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let line = std::fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
        if line.contains("shim-wick") && line.contains(&folder) {
            let _ = Command::new("kill").arg("-9").arg(process.file_name()).status();
        }
    }
}

/// A tmpfs in place of an image's layers.
pub fn tmpfs() -> Mount {
    let options = vec!["size=64k".to_owned()];
    Mount { type_: "tmpfs".into(), source: "tmpfs".into(), options, ..Default::default() }
}

/// Wait until something is so.
pub fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie that some other parent has not reaped is not alive.
    !stat.is_empty() && !stat.contains(") Z ")
}
