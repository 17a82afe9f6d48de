//! The first process of a cluster's namespaces. It gives the cluster its own folders, starts
//! daemons when it is told to over a socket, and collects every process that ends. It
//! decides nothing: what may be started is in the plan, and when, `up` says.
//!
//! When it ends, however it ends, the kernel ends every process of the cluster, and with the
//! last of them go its mounts, its interfaces and its packet filter. That is why it exists.
//!
//! ```text
//!  up, down ──control.sock──▶ orders ──┐
//!                                      ├──▶ one loop that owns all state
//!  kernel ───waitpid(-1)────▶ exits ───┘
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, WaitOptions};

use super::daemons::{Daemon, Plan};
use crate::tools;

/// How long a daemon may take to end after SIGTERM. The API server waits for its watches,
/// which no one will end, so it uses all of this.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Pause of the collector while there is no child at all.
const IDLE: Duration = Duration::from_millis(20);

/// Longest order: a verb and a daemon's name.
const MAX_ORDER: usize = 128;

/// What the loop waits for.
enum Event {
    Ended(Pid),
    Order(String, UnixStream),
}

/// The state of the loop.
struct Supervisor {
    plan: Plan,
    /// What runs, by name.
    running: BTreeMap<String, Pid>,
    events: Receiver<Event>,
}

/// Be the first process: return when ordered to stop. `plan` is the path of the plan.
pub fn run(plan: &Path) -> anyhow::Result<()> {
    ensure!(std::process::id() == 1, "`cluster supervise` is started by `cluster up` only");
    let bytes = fs::read(plan).with_context(|| format!("read {}", plan.display()))?;
    let plan: Plan = serde_json::from_slice(&bytes).context("read the plan")?;
    enter_cgroups(&plan)?;
    mount_own_folders(&plan)?;
    sysctls()?;
    let (sender, events) = mpsc::channel();
    let listener = UnixListener::bind(&plan.control)
        .with_context(|| format!("listen on {}", plan.control.display()))?;
    let orders = sender.clone();
    thread::spawn(move || take_orders(&listener, &orders));
    thread::spawn(move || collect(&sender));
    Supervisor { plan, running: BTreeMap::new(), events }.run()
}

// === impl Supervisor ===

impl Supervisor {
    fn run(&mut self) -> anyhow::Result<()> {
        loop {
            match self.events.recv().context("both sources of events have ended")? {
                Event::Ended(pid) => self.forget(pid),
                Event::Order(order, mut stream) => {
                    let stop = order == "stop";
                    let done = self.obey(&order);
                    let answer = match &done {
                        Ok(()) => "ok\n".to_owned(),
                        Err(error) => format!("{error:#}\n"),
                    };
                    // Who asked may be gone; the order is done all the same.
                    drop(stream.write_all(answer.as_bytes()));
                    if stop {
                        return done;
                    }
                }
            }
        }
    }

    fn obey(&mut self, order: &str) -> anyhow::Result<()> {
        match order.split_once(' ') {
            None if order == "stop" => self.stop_all(),
            Some(("start", name)) => self.start(name),
            Some(("stop", name)) => self.stop(name),
            Some(("restart", name)) => {
                self.stop(name)?;
                self.start(name)
            }
            _ => bail!("no order `{order}`"),
        }
    }

    fn start(&mut self, name: &str) -> anyhow::Result<()> {
        ensure!(!self.running.contains_key(name), "{name} runs already");
        let daemon = self.plan.daemons.iter().find(|daemon| daemon.name == name);
        let pid = spawn(daemon.with_context(|| format!("no daemon {name}"))?, &self.plan.logs)?;
        self.running.insert(name.to_owned(), pid);
        Ok(())
    }

    /// Stop one daemon: SIGTERM, and SIGKILL after a while.
    fn stop(&mut self, name: &str) -> anyhow::Result<()> {
        for signal in [Signal::TERM, Signal::KILL] {
            let Some(pid) = self.running.get(name) else { return Ok(()) };
            // It may have ended a moment ago, which the loop will hear.
            rustix::process::kill_process(*pid, signal).ok();
            self.wait_for_end(name);
        }
        ensure!(!self.running.contains_key(name), "{name} does not end");
        Ok(())
    }

    /// Stop in reverse order of the start.
    fn stop_all(&mut self) -> anyhow::Result<()> {
        let names: Vec<String> =
            self.plan.daemons.iter().rev().map(|daemon| daemon.name.clone()).collect();
        names.iter().try_for_each(|name| self.stop(name))
    }

    fn wait_for_end(&mut self, name: &str) {
        let deadline = Instant::now() + STOP_TIMEOUT;
        while self.running.contains_key(name) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(Event::Ended(pid)) => self.forget(pid),
                Ok(Event::Order(_, mut stream)) => {
                    drop(stream.write_all(b"busy with another order\n"));
                }
                Err(_) => return,
            }
        }
    }

    fn forget(&mut self, ended: Pid) {
        self.running.retain(|_, pid| *pid != ended);
    }
}

fn spawn(daemon: &Daemon, logs: &Path) -> anyhow::Result<Pid> {
    ensure!(daemon.program.is_file(), "{} does not exist", daemon.program.display());
    let path = logs.join(format!("{}.log", daemon.name));
    let log = OpenOptions::new().create(true).append(true).open(&path);
    let log = log.with_context(|| format!("open {}", path.display()))?;
    let mut command = Command::new(&daemon.program);
    command.args(&daemon.args).env_clear().envs(&daemon.env).current_dir("/");
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let child = command.spawn().with_context(|| format!("start {}", daemon.name))?;
    // The child is collected by `collect` with all others, not through this handle.
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    pid.context("a process without a number")
}

/// Collect whatever ends, orphans of other processes included.
fn collect(events: &Sender<Event>) {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, _status))) => {
                if events.send(Event::Ended(pid)).is_err() {
                    return;
                }
            }
            // No child at this moment, or a signal came.
            Ok(None) | Err(_) => thread::sleep(IDLE),
        }
    }
}

/// Read one order from each connection; the loop answers on it.
fn take_orders(listener: &UnixListener, events: &Sender<Event>) {
    for stream in listener.incoming().flatten() {
        let mut order = String::new();
        let read = BufReader::new(&stream).read_line(&mut order);
        if read.is_ok_and(|length| length <= MAX_ORDER)
            && events.send(Event::Order(order.trim_end().to_owned(), stream)).is_err()
        {
            return;
        }
    }
}

/// Everything that is started from here on counts for the cluster.
fn enter_cgroups(plan: &Plan) -> anyhow::Result<()> {
    for folder in &plan.cgroups {
        let procs = folder.join("cgroup.procs");
        fs::write(&procs, "0").with_context(|| format!("enter {}", folder.display()))?;
    }
    Ok(())
}

/// Mounts of pods must reach every process of the cluster, and none of the machine's, so
/// first nothing is shared, and then what is mounted from here on is.
fn mount_own_folders(plan: &Plan) -> anyhow::Result<()> {
    mount(&["--make-rprivate", "/"])?;
    for (there, ours) in &plan.own_folders {
        mount(&["--bind", &ours.to_string_lossy(), &there.to_string_lossy()])?;
    }
    // What is here tells of this namespace's processes, not of the machine's.
    mount(&["-t", "proc", "proc", "/proc"])?;
    mount(&["--make-rshared", "/"])
}

fn mount(args: &[&str]) -> anyhow::Result<()> {
    tools::output(Command::new("mount").args(args)).map(drop)
}

/// The node forwards packets for its pods.
fn sysctls() -> anyhow::Result<()> {
    let path = "/proc/sys/net/ipv4/ip_forward";
    let mut file = File::create(path).with_context(|| format!("open {path}"))?;
    file.write_all(b"1\n").with_context(|| format!("write {path}"))
}
