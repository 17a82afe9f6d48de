//! `wick run` as a child: started on a free port, waited for, stopped by SIGTERM.

use std::io::{self, BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use crate::http;

/// Pause between two looks at a server that starts or stops.
const POLL: Duration = Duration::from_millis(10);

/// Longest time that a server takes to drain; its own limit is shorter.
const STOP_TIMEOUT: Duration = Duration::from_secs(40);

/// A running server; it is killed when dropped without `stop`.
pub struct Server {
    child: Child,
    pub addr: SocketAddr,
}

// === impl Server ===

impl Server {
    /// Start `command`, which must be `wick run … --output json`, and wait until it is ready.
    pub fn start(command: &mut Command, timeout: Duration) -> anyhow::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().context("start wick")?;
        let stdout = child.stdout.take().context("wick has no standard output")?;
        // From here on, a return ends the child.
        let mut server = Self { child, addr: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let lines = first_line(stdout);
        let line = lines.recv_timeout(timeout).with_context(|| {
            let seconds = timeout.as_secs();
            format!("wick ended, or did not listen within {seconds} s")
        })?;
        server.addr = address(&line).with_context(|| format!("wick's first line: {line}"))?;
        server.wait_ready(timeout)?;
        Ok(server)
    }

    /// The address as a URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Ask it to stop, and wait until it has.
    pub fn stop(mut self) -> anyhow::Result<ExitStatus> {
        let pid = self.child.id().to_string();
        crate::tools::run(Command::new("kill").args(["-TERM", &pid]))?;
        let start = Instant::now();
        while start.elapsed() < STOP_TIMEOUT {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            sleep(POLL);
        }
        bail!("wick did not stop within {} s of SIGTERM", STOP_TIMEOUT.as_secs());
    }

    /// Wait until it ends by itself.
    pub fn wait(mut self) -> anyhow::Result<ExitStatus> {
        self.child.wait().context("wait for wick")
    }

    fn wait_ready(&mut self, timeout: Duration) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            let answer = http::send(self.addr, "/v2/health/ready", None);
            if answer.is_ok_and(|answer| answer.status == 200) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("wick ended before it was ready: {status}");
            }
            ensure!(start.elapsed() < timeout, "wick was not ready within {timeout:?}");
            sleep(POLL);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A server that has ended needs nothing.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Read a child's first line in a thread of its own, since a pipe can't be read with a
/// timeout. The rest is read too and dropped, so that the child can always write.
fn first_line(stdout: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        if stdout.read_line(&mut line).is_ok_and(|read| read > 0) {
            // Nobody waits for it any more after the timeout.
            drop(sender.send(line));
        }
        drop(io::copy(&mut stdout, &mut io::sink()));
    });
    receiver
}

/// The address in the JSON line that `wick run --output json` prints when it listens.
fn address(line: &str) -> anyhow::Result<SocketAddr> {
    let line: serde_json::Value = serde_json::from_str(line)?;
    let url = line["url"].as_str().context("no `url`")?;
    let addr = url.strip_prefix("http://").context("`url` is no http address")?;
    addr.trim_end_matches('/').parse().context("`url` has no address and port")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_tells_the_address() -> anyhow::Result<()> {
        let addr: SocketAddr = "127.0.0.1:8081".parse()?;
        assert_eq!(address("{\"url\":\"http://127.0.0.1:8081/\"}\n")?, addr);
        for line in ["", "{}", "{\"url\":1}", "{\"url\":\"http://x\"}"] {
            assert!(address(line).is_err(), "{line}");
        }
        Ok(())
    }
}
