//! A shim for the tests: a worker in namespaces of its own, with an order of a test's making.

#![allow(clippy::print_stderr, reason = "a test that can't run says so")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use wick_sandbox::Channel;
use wick_sandbox::order::{Go, Mount, Order, Phase, Report, Settings, Task, User, VERSION};

use crate::support::Sandbox;

/// Longest wait for anything: generous, since tests share the machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// `MS_BIND | MS_REC` and `MS_RDONLY`.
const BIND: u64 = 4096 | 16384;
pub const READ_ONLY: u64 = 1;

/// An image, and the order to run it.
pub struct Pod {
    pub sandbox: Sandbox,
    pub order: Order,
}

/// A worker that was given its order.
pub struct Worker {
    pub child: Child,
    pub channel: Channel,
    pub addr: Option<String>,
}

/// Whether these tests can run. Without root they can't, which CI must not overlook.
pub fn root_or_skip() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    if status.lines().any(|line| line.starts_with("Uid:\t0\t0")) {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "workers are tested as root");
    eprintln!("needs root: skipped");
    false
}

/// A compiled guest.
pub fn guest(name: &str) -> Vec<u8> {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"), PathBuf::from);
    let folder = std::env::var_os("WICK_GUESTS")
        .map_or_else(|| target.join("wasm32-wasip2/guest"), PathBuf::from);
    let path = folder.join(name).with_extension("wasm");
    fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; run `cargo xtask setup`", path.display()))
}

// === impl Pod ===

impl Pod {
    /// An image with nothing in it, and the usual mounts.
    pub fn new() -> Self {
        let sandbox = Sandbox::new();
        let rootfs = sandbox.path("rootfs");
        fs::create_dir(&rootfs).unwrap();
        fs::set_permissions(&rootfs, fs::Permissions::from_mode(0o755)).unwrap();
        let kernel = |kind: &str, destination: &str, data: &str| Mount {
            destination: destination.into(),
            kind: kind.into(),
            source: kind.into(),
            flags: 0,
            propagation: 0,
            data: data.into(),
        };
        let order = Order {
            version: VERSION,
            task: Task::Run,
            name: "app".into(),
            rootfs,
            sealed: false,
            mounts: vec![
                kernel("proc", "/proc", ""),
                kernel("tmpfs", "/dev", "mode=755,size=65536k"),
                kernel("sysfs", "/sys", ""),
                kernel("cgroup", "/sys/fs/cgroup", ""),
            ],
            devices: vec![],
            args: vec!["/wick.toml".into()],
            env: vec![],
            cwd: "/".into(),
            user: User { uid: 1000, gid: 1000, ..User::default() },
            rlimits: vec![],
            masked_paths: vec![],
            readonly_paths: vec![],
            apparmor: None,
            hostname: None,
            backends: None,
            accelerators: Vec::new(),
            cache: None,
            settings: Settings { addr: Some("127.0.0.1:0".into()), ..Settings::default() },
        };
        Self { sandbox, order }
    }

    /// `y = x + 1`, without a handler.
    pub fn plus_one() -> Self {
        let pod = Self::new();
        let model = wick_testing::onnx::add_scalar(1.0, &[-1, 4]);
        pod.file("model.onnx", &model);
        pod.file("wick.toml", MANIFEST.as_bytes());
        pod
    }

    /// A file of the image.
    pub fn file(&self, path: &str, content: &[u8]) -> &Self {
        let path = self.order.rootfs.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    pub fn args(mut self, args: &[&str]) -> Self {
        self.order.args = args.iter().map(|&arg| arg.to_owned()).collect();
        self
    }

    pub fn bind(&mut self, source: &Path, destination: &str, flags: u64) {
        self.order.mounts.push(Mount {
            destination: destination.into(),
            kind: "bind".into(),
            source: source.to_owned(),
            flags: BIND | flags,
            propagation: 0,
            data: String::new(),
        });
    }

    /// Start a worker and give it its order.
    pub fn start(&self) -> Worker {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--cgroup", "--ipc", "--fork", "--kill-child", "--"]);
        let child = command
            .arg(env!("CARGO_BIN_EXE_wick"))
            .args(["worker", "--channel", "0"])
            .env_clear()
            .env("HOST_SECRET", "of the node")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut channel = Channel::new(ours);
        channel.send(&self.order).unwrap();
        Worker { child, channel, addr: None }
    }

    /// Start a worker and let it go.
    pub fn run(&self) -> Worker {
        let mut worker = self.start();
        worker.ready();
        worker.go();
        worker
    }

    /// Start a worker, let it go, and wait until its model is ready.
    pub fn serve(&self) -> Worker {
        let worker = self.run();
        let start = Instant::now();
        while !worker.get("/v2/health/ready").starts_with("HTTP/1.1 200") {
            assert!(start.elapsed() < PATIENCE, "it is not ready");
            std::thread::sleep(Duration::from_millis(5));
        }
        worker
    }
}

const MANIFEST: &str = "[package]\nname = \"plus-one\"\nversion = \"1.2.3\"\n\n\
                        [[graph]]\nname = \"g\"\npath = \"model.onnx\"\n";

// === impl Worker ===

impl Worker {
    #[track_caller]
    pub fn report(&mut self) -> Report {
        self.channel.receive(Some(PATIENCE)).unwrap()
    }

    #[track_caller]
    pub fn ready(&mut self) -> Vec<Phase> {
        match self.report() {
            Report::Ready { phases } => phases,
            other => panic!("not ready: {other:?}"),
        }
    }

    #[track_caller]
    pub fn go(&mut self) {
        self.channel.send(&Go { version: VERSION }).unwrap();
        match self.report() {
            Report::Started { addr, .. } => self.addr = addr,
            other => panic!("not started: {other:?}"),
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr.as_ref().unwrap())
    }

    /// The worker itself: `unshare` only waits for it.
    pub fn pid(&self) -> u32 {
        let id = self.child.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        children.trim().parse().unwrap()
    }

    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr.as_ref().unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Head and body of an answer.
    pub fn get(&self, path: &str) -> String {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"))
    }

    pub fn post(&self, path: &str, body: &str) -> String {
        let length = body.len();
        self.send(&format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\
             \r\n{body}"
        ))
    }

    fn send(&self, request: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Wait for the end: code and output.
    pub fn end(mut self) -> Output {
        let start = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut output =
            Output { status: self.child.wait().unwrap(), stdout: Vec::new(), stderr: Vec::new() };
        self.child.stdout.take().unwrap().read_to_end(&mut output.stdout).unwrap();
        self.child.stderr.take().unwrap().read_to_end(&mut output.stderr).unwrap();
        output
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It has ended already where the test went well.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
