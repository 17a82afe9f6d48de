//! `wick run` as a process of its own, so that client and server do not share an
//! allocator, a runtime or a warm cache.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::http::Client;
use crate::setup::Setup;

/// Longest time until a server is ready, with cold caches.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// A running server; it is ended when dropped.
pub struct Server {
    child: Child,
    pub addr: SocketAddr,
}

impl Server {
    /// Start `wick run` on packages and wait until all are ready.
    pub fn start(setup: &Setup, packages: &[&Path]) -> anyhow::Result<Self> {
        let mut child = command(setup, packages, "127.0.0.1:0").spawn().context("start wick")?;
        let stdout = child.stdout.take().context("wick has no standard output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let ready: serde_json::Value =
            serde_json::from_str(&line).with_context(|| format!("first line of wick: {line:?}"))?;
        let url = ready["url"].as_str().context("wick's first line has no url")?;
        let addr = url.trim_start_matches("http://").trim_end_matches('/').parse()?;
        let server = Self { child, addr };
        server.wait_ready()?;
        Ok(server)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn client(&self) -> anyhow::Result<Client> {
        Client::connect(self.addr).context("connect to wick")
    }

    /// Resident memory in KiB.
    pub fn resident_kib(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        Ok(line.context("no VmRSS")?.trim().trim_end_matches(" kB").trim().parse()?)
    }

    /// CPU time that the process has used, in seconds.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        // The name in brackets may hold spaces; the counters follow the last bracket.
        let fields = stat.rsplit(')').next().context("no stat")?;
        let mut numbers = fields.split_whitespace().skip(11);
        let mut next = || numbers.next().context("short stat")?.parse::<f64>().context("stat");
        let ticks = next()? + next()?;
        // USER_HZ is 100 on every Linux that wick runs on.
        Ok(ticks / 100.0)
    }

    fn wait_ready(&self) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            let answer = Client::connect(self.addr).ok().map(|mut c| c.get("/v2/health/ready"));
            if let Some(Ok(answer)) = answer
                && answer.status == 200
            {
                return Ok(());
            }
            ensure!(start.elapsed() < START_TIMEOUT, "wick was not ready in {START_TIMEOUT:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing useful can be done if it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The command line of a server.
pub fn command(setup: &Setup, packages: &[&Path], addr: &str) -> Command {
    let mut command = Command::new(&setup.wick);
    command.arg("run").args(packages).args(["--addr", addr, "--output", "json"]);
    command.arg("--onnxruntime").arg(&setup.onnxruntime);
    command.env("XDG_CACHE_HOME", setup.scratch.path().join("cache"));
    command.stdout(Stdio::piped()).stderr(Stdio::inherit()).stdin(Stdio::null());
    command.env("RUST_LOG", "warn");
    command
}
