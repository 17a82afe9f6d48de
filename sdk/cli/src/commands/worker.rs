//! `wick worker`: one container of a pod. The shim starts it, nobody types it.
//!
//! ```text
//!  one thread:  order ─▶ backend libraries ─▶ lock down ─▶ Ready ─▶ wait for Go
//!  then:        threads, port ─▶ Started ─▶ open the package, load, warm ─▶ serve, or run
//! ```
//!
//! Nothing that came with a package is looked at before the lockdown. The order, the reports
//! and the lockdown itself are `wick-sandbox`'s.

mod job;
mod logging;
mod package;
mod serve;
mod signals;

use std::fmt::Display;
use std::os::fd::RawFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use wick_engine::{Engine, EngineSettings};
use wick_nn::{Nn, NnSettings};
use wick_sandbox::order::{Go, Order, Phase, Report, Task, VERSION};
use wick_sandbox::{BACKENDS, CACHE, Channel, LockdownError, Signals, Woken};

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::host::{self, Host};

use logging::Log;

/// Longest wait for the order: the shim sends it as soon as it has started this process.
const ORDER_DEADLINE: Duration = Duration::from_secs(30);

/// Heaps beside the first. Threads wait for each other's allocations a little more often, and
/// a pod keeps megabytes less of what was freed.
const HEAPS: u16 = 2;

/// Folders of the node's cache: compiled components, and optimised graphs.
const COMPONENTS: &str = "components";
const GRAPHS: &str = "graphs";

/// What a container that was ended by a signal answers: 128 and the signal's number.
const BY_SIGNAL: i32 = 128;

/// Serve one container of a pod
#[derive(Debug, clap::Args)]
pub struct WorkerArgs {
    /// The descriptor of the channel to the shim
    #[arg(long, value_name = "NUMBER", default_value_t = wick_sandbox::channel::WORKER_FD)]
    channel: RawFd,
}

/// What a worker needs from its lockdown to its end.
struct Worker {
    channel: Channel,
    order: Order,
    signals: Signals,
    start: Instant,
}

/// Runs before any other thread of this process exists.
pub fn run(args: &WorkerArgs) -> Outcome<ExitCode> {
    let start = Instant::now();
    let broken = |error: &dyn Display| {
        Failure::new(Exit::Failure, "channel", format_args!("no channel to the shim: {error}"))
            .help("`wick worker` is started by the shim; `wick run` serves packages")
    };
    wick_sandbox::close_inherited(args.channel).map_err(|error| broken(&error))?;
    let stream = wick_sandbox::adopt(args.channel).map_err(|error| broken(&error))?;
    let mut channel = Channel::new(stream);
    let signals = Signals::take().map_err(|error| broken(&error))?;
    wick_sandbox::bound_heaps(HEAPS);
    wick_sandbox::return_large_blocks();
    let order = receive_order(&mut channel).map_err(|failure| told(&mut channel, failure))?;
    let mut worker = Worker { channel, order, signals, start };
    match worker.prepare() {
        Ok(None) => {}
        Ok(Some(code)) => return Ok(code),
        Err(failure) => return Err(told(&mut worker.channel, failure)),
    }
    worker.go()
}

/// The order, if it is of this release. Its version is looked at before the rest.
fn receive_order(channel: &mut Channel) -> Outcome<Order> {
    let wrong = |text: &dyn Display| {
        Failure::new(Exit::Failure, "order", format_args!("no order from the shim: {text}"))
    };
    let value: serde_json::Value =
        channel.receive(Some(ORDER_DEADLINE)).map_err(|error| wrong(&error))?;
    let version = value.get("version").and_then(serde_json::Value::as_u64);
    if version != Some(u64::from(VERSION)) {
        let found = version.map_or_else(|| "none".to_owned(), |version| version.to_string());
        return Err(wrong(&format_args!("its version is {found}, and this wick has {VERSION}"))
            .help("install shim and wick of one release; `wick shim register` does"));
    }
    serde_json::from_value(value).map_err(|error| wrong(&error))
}

/// Tell the shim of a failure, as well as whoever reads standard error.
fn told(channel: &mut Channel, failure: Failure) -> Failure {
    let report = Report::Failed { code: failure.code().to_owned(), message: failure.to_line() };
    // A shim that is gone has no use for it.
    let _ = channel.send(&report);
    failure
}

// === impl Worker ===

impl Worker {
    /// Lock down, and wait until the shim says go. A code ends the process before that.
    fn prepare(&mut self) -> Outcome<Option<ExitCode>> {
        let mut phases = vec![Phase { name: "order".into(), micros: micros(self.start) }];
        let libraries = Instant::now();
        if let Some(backends) = &self.order.backends {
            let loaded = wick_nn::preload(std::slice::from_ref(backends));
            loaded.map_err(|error| Failure::of(&error))?;
        }
        phases.push(Phase { name: "backends".into(), micros: micros(libraries) });
        phases.extend(wick_sandbox::lock_down(&self.order).map_err(|error| refused(&error))?);
        let lost = |error: &dyn Display| {
            Failure::new(Exit::Failure, "channel", format_args!("the shim is gone: {error}"))
        };
        self.channel.send(&Report::Ready { phases }).map_err(|error| lost(&error))?;
        match self.signals.wait_beside(&self.channel).map_err(|error| lost(&error))? {
            Woken::Signal(signal) => return Ok(Some(ended_by(signal))),
            Woken::Channel => {}
        }
        let go: Go = self.channel.receive(None).map_err(|error| lost(&error))?;
        if go.version != VERSION {
            return Err(lost(&format_args!("its Go has version {}", go.version)));
        }
        Ok(None)
    }

    /// Start threads, and do what the order says.
    fn go(mut self) -> Outcome<ExitCode> {
        let start = Instant::now();
        let log = match Log::start(&self.order) {
            Ok(log) => log,
            Err(failure) => return Err(told(&mut self.channel, failure)),
        };
        let settings = self.nn_settings();
        let ended = host::block_on(settings.cpus, async {
            match self.order.task {
                Task::Compile => self.compile(settings, start).await,
                Task::Run => serve::run(&mut self, settings, start).await,
            }
        });
        if let Err(failure) = &ended {
            let code = failure.code();
            tracing::error!(code, "{}", failure.to_line());
            package::leave_message(&failure.to_line());
            let report = Report::Failed { code: code.to_owned(), message: failure.to_line() };
            let _ = self.channel.send(&report);
        }
        log.flush();
        // It is in the log already.
        Ok(ended.unwrap_or_else(|failure| failure.exit().into()))
    }

    /// Fill the cache with what the package's next start would make itself.
    async fn compile(&mut self, settings: NnSettings, start: Instant) -> Outcome<ExitCode> {
        if self.order.cache.is_none() {
            return Err(Failure::usage("a compile task needs a cache to fill"));
        }
        self.started(None, start)?;
        let mut signals = signals::Listening::new(&self.signals)?;
        let (package, grants) = package::open(&self.order)?;
        // What is made in them is for workers of any user.
        let folders = [self.cache(COMPONENTS), self.cache(GRAPHS)];
        for folder in folders.into_iter().flatten() {
            let made = std::fs::create_dir_all(&folder);
            made.with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let host = self.host(settings)?;
        tokio::select! {
            loaded = host.engine.load(package, grants) => {
                loaded.map_err(|error| Failure::of(&error))?;
                Ok(ExitCode::SUCCESS)
            }
            signal = signals.next() => Ok(ended_by(signal)),
        }
    }

    /// Tell the shim that containerd's Start is done.
    fn started(&mut self, addr: Option<String>, start: Instant) -> Outcome {
        let phases = vec![Phase { name: "listen".into(), micros: micros(start) }];
        let sent = self.channel.send(&Report::Started { addr, phases });
        sent.map_err(|error| {
            Failure::new(Exit::Failure, "channel", format_args!("the shim is gone: {error}"))
        })
    }

    /// Backends and cache are where the lockdown has put them.
    fn nn_settings(&self) -> NnSettings {
        let mut settings = NnSettings::detect();
        settings.onnxruntime = None;
        settings.backend_dirs = self.order.backends.iter().map(|_| BACKENDS.into()).collect();
        settings.cache = self.cache(GRAPHS);
        settings
    }

    fn host(&self, settings: NnSettings) -> Outcome<Host> {
        let cpus = settings.cpus;
        let cache = self.cache(COMPONENTS);
        let nn = Nn::new(settings).map_err(|error| Failure::of(&error))?;
        let settings = EngineSettings { cache, ..EngineSettings::default() };
        let engine = Engine::new(settings, nn).map_err(|error| Failure::of(&error))?;
        Ok(Host { engine, cpus })
    }

    fn cache(&self, name: &str) -> Option<std::path::PathBuf> {
        let folder = std::path::Path::new(CACHE).join(name);
        // A cache that can only be read has the folder or nothing for us.
        let usable = self.order.task == Task::Compile || folder.is_dir();
        (self.order.cache.is_some() && usable).then_some(folder)
    }
}

/// What the process answers that `signal` has ended.
fn ended_by(signal: i32) -> ExitCode {
    ExitCode::from(u8::try_from(BY_SIGNAL + signal).unwrap_or(Exit::Failure.number()))
}

fn refused(error: &LockdownError) -> Failure {
    Failure::new(Exit::Failure, error.code(), error)
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
