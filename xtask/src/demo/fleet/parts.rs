//! What the fleet consists of: processes on loopback that end with the demo, each with its own folder
//! and its own log.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use super::{LOOK, Policy};
use crate::house::House;
use crate::tools;

/// Longest until a program of the fleet listens.
const START: Duration = Duration::from_secs(30);

const POLL: Duration = Duration::from_millis(20);

/// Where everything is made.
pub struct Stage<'a> {
    pub house: &'a House,
    pub folder: &'a Path,
}

/// A process that ends with the demo, and where it listens.
pub struct Running {
    child: Child,
    pub addr: SocketAddr,
}

/// The hub and its broker.
pub struct Hub {
    _broker: Running,
    hub: Running,
    token: String,
    folder: PathBuf,
}

/// One site.
pub struct Agent {
    _process: Running,
    /// Where it serves.
    pub addr: SocketAddr,
}

// === impl Stage ===

impl Stage<'_> {
    pub fn wick(&self) -> Command {
        let mut wick = Command::new(self.house.wick());
        // Nothing of whoever runs the demo has a say in it.
        for name in ["WICK_HUB", "WICK_TOKEN", "WICK_HUB_CA", "WICK_HUB_DIR"] {
            wick.env_remove(name);
        }
        wick.stdin(Stdio::null());
        wick
    }

    pub fn policy(&self) -> anyhow::Result<Policy> {
        Policy::new(self.folder.join("policy"))
    }

    /// Debian's registry without a password.
    pub fn registry(&self, executable: &Path) -> anyhow::Result<Running> {
        let folder = self.folder.join("registry");
        fs::create_dir_all(&folder)?;
        let addr = free()?;
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: '{addr}', secret: demo}}\n",
            folder.join("data").display()
        );
        let file = folder.join("config.yml");
        fs::write(&file, config)?;
        let mut command = Command::new(executable);
        Running::start(command.arg("serve").arg(file), addr, &folder)
    }

    /// A hub with a new authority, and mosquitto with the files that it writes for it.
    pub fn hub(&self, mosquitto: &Path, policy: &Policy) -> anyhow::Result<Hub> {
        let folder = self.folder.join("hub");
        let api = free()?;
        let name = Ipv4Addr::LOCALHOST.to_string();
        let mut init = self.wick();
        init.args(["hub", "init", "--name", &name, "--output", "json", "--dir"]).arg(&folder);
        let made: Value = serde_json::from_str(&tools::output(&mut init)?)?;
        let token = made["token"].as_str().context("no token of an admin")?.to_owned();
        let broker = self.broker(mosquitto, &folder)?;
        let mut run = self.wick();
        run.args(["hub", "run", "--every", "1s", "--git", &policy.url(), "--dir"]).arg(&folder);
        run.args(["--broker", &format!("mqtts://{}", broker.addr)]);
        run.args(["--listen", &api.to_string()]);
        let hub = Running::start(&mut run, api, &self.folder.join("broker"))?;
        Ok(Hub { _broker: broker, hub, token, folder })
    }

    fn broker(&self, mosquitto: &Path, hub: &Path) -> anyhow::Result<Running> {
        let folder = self.folder.join("broker");
        fs::create_dir_all(&folder)?;
        let (acl, addr) = (folder.join("acl"), free()?);
        let print = |more: &[&str]| -> anyhow::Result<String> {
            let mut command = self.wick();
            command.args(["hub", "mosquitto", "--dir"]).arg(hub).args(more);
            tools::output(&mut command)
        };
        fs::write(&acl, print(&["--acl"])?)?;
        let (file, port) = (acl.display().to_string(), addr.port().to_string());
        let config = print(&["--acl-file", &file, "--port", &port])?;
        let config = config.replace("persistence true", "persistence false");
        let path = folder.join("mosquitto.conf");
        // As root it would take another user, who may not read the hub's folder.
        fs::write(&path, format!("user root\n{config}"))?;
        let libraries = format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH);
        let mut command = Command::new(mosquitto.join("usr/sbin/mosquitto"));
        command.env("LD_LIBRARY_PATH", mosquitto.join(libraries)).arg("-c").arg(path);
        Running::start(&mut command, addr, &folder)
    }

    /// Enrol a site with a one-time token, and start its agent.
    pub fn agent(&self, hub: &Hub, registry: SocketAddr, site: &str) -> anyhow::Result<Agent> {
        let folder = self.folder.join(site);
        fs::create_dir_all(&folder)?;
        let token: Value = serde_json::from_str(&hub.fleet(self, &["enrol-token", site], true)?)?;
        let token = token["token"].as_str().context("no token for a site")?;
        let state = folder.join("state");
        let mut enrol = self.wick();
        enrol.args(["agent", "enrol", "--hub", &hub.url(), "--site", site]);
        enrol.args(["--memory", "512MiB", "--disk", "256MiB", "--state"]).arg(&state);
        enrol.arg("--hub-ca").arg(hub.folder.join("ca.crt")).env("WICK_AGENT_TOKEN", token);
        tools::output(&mut enrol)?;
        let (addr, control) = (free()?, free()?);
        let mut run = self.wick();
        run.args(["agent", "run", "--addr", &addr.to_string(), "--telemetry", "5s"]);
        run.args(["--control", &control.to_string(), "--plain-http-for", &registry.to_string()]);
        run.arg("--onnxruntime").arg(self.house.onnxruntime()).arg("--state").arg(&state);
        let process = Running::start(&mut run, control, &folder)?;
        Ok(Agent { _process: process, addr })
    }
}

// === impl Hub ===

impl Hub {
    fn url(&self) -> String {
        format!("https://{}", self.hub.addr)
    }

    /// `wick fleet …`, and what it prints.
    pub fn fleet(&self, stage: &Stage<'_>, words: &[&str], json: bool) -> anyhow::Result<String> {
        let mut wick = stage.wick();
        wick.arg("fleet").args(words).env("WICK_HUB", self.url()).env("WICK_TOKEN", &self.token);
        wick.env("WICK_HUB_CA", self.folder.join("ca.crt"));
        wick.args(if json { &["--output", "json"][..] } else { &[] });
        tools::output(&mut wick)
    }

    /// Wait until a rollout is in a phase.
    pub fn until(
        &self,
        stage: &Stage<'_>,
        rollout: &str,
        phase: &str,
        limit: Duration,
    ) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let all: Value = serde_json::from_str(&self.fleet(stage, &["rollouts"], true)?)?;
            let mut list = all["rollouts"].as_array().into_iter().flatten();
            let found = list.find(|one| one["name"] == rollout).cloned().unwrap_or_default();
            if found["phase"] == phase {
                return Ok(());
            }
            if begun.elapsed() >= limit {
                let said = self.fleet(stage, &["status"], false)?;
                bail!("{rollout} is not {phase} but {found}\n{said}");
            }
            thread::sleep(LOOK);
        }
    }
}

// === impl Running ===

impl Running {
    /// Start it and wait until it listens. What it says goes to a file of its folder.
    fn start(command: &mut Command, addr: SocketAddr, folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("log");
        let log = File::options().create(true).append(true).open(&path)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| tools::shown(command))?;
        let mut running = Self { child, addr };
        let begun = Instant::now();
        while TcpStream::connect(addr).is_err() {
            let said = || fs::read_to_string(&path).unwrap_or_default();
            if let Some(status) = running.child.try_wait()? {
                bail!("{} ended with {status}: {}", tools::shown(command), said());
            }
            let what = tools::shown(command);
            ensure!(begun.elapsed() < START, "{what} does not listen: {}", said());
            thread::sleep(POLL);
        }
        Ok(running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // What has ended needs nothing.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// An address that nobody listens on.
fn free() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
