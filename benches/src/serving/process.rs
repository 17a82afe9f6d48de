//! A server under test as a process: started, waited for, and ended with all its children.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::http::Client;

/// Longest time until a server is ready: Python servers import for many seconds.
const START_TIMEOUT: Duration = Duration::from_secs(180);

/// What a server has to end by itself; Triton frees shared memory then.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// How often a starting or ending server is looked at.
const POLL: Duration = Duration::from_millis(50);

/// A running server; it is ended when dropped.
pub struct Process {
    name: &'static str,
    child: Child,
    pub http: SocketAddr,
    pub grpc: SocketAddr,
}

// === impl Process ===

impl Process {
    /// Start a server in a process group of its own. What it says goes to `log`.
    pub fn start(
        name: &'static str,
        command: &mut Command,
        log: &std::path::Path,
        [http, grpc]: [u16; 2],
    ) -> anyhow::Result<Self> {
        let log = std::fs::File::create(log)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let child = command.spawn().with_context(|| format!("start {name}"))?;
        let addr = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Ok(Self { name, child, http: addr(http), grpc: addr(grpc) })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Wait until a model is ready.
    pub fn wait_ready(&mut self, model: &str) -> anyhow::Result<()> {
        let start = Instant::now();
        let path = format!("/v2/models/{model}/ready");
        while start.elapsed() < START_TIMEOUT {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended before it was ready: {status}", self.name);
            }
            let answer = Client::connect(self.http).ok().and_then(|mut c| c.get(&path).ok());
            if answer.is_some_and(|answer| answer.status == 200) {
                return Ok(());
            }
            std::thread::sleep(POLL);
        }
        bail!("{}: model {model} was not ready in {START_TIMEOUT:?}", self.name)
    }

    fn signal(&self, signal: &str, to: &str) {
        let mut kill = Command::new("kill");
        // If it fails, the process has ended already.
        drop(kill.args([signal, "--", to]).stderr(Stdio::null()).status());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let pid = self.pid();
        self.signal("-TERM", &pid.to_string());
        let start = Instant::now();
        while start.elapsed() < STOP_TIMEOUT && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(POLL);
        }
        // The group, so that no worker outlives its server.
        self.signal("-KILL", &format!("-{pid}"));
        drop(self.child.wait());
    }
}

/// Ports that nobody listens on. Servers are told them, since not each can choose one.
pub fn free_ports<const N: usize>() -> anyhow::Result<[u16; N]> {
    let mut taken = Vec::with_capacity(N);
    for _ in 0..N {
        taken.push(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?);
    }
    let mut ports = [0; N];
    for (port, listener) in ports.iter_mut().zip(&taken) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}
