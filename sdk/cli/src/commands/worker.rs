//! `wick worker`: one container of a pod. The shim starts it, nobody types it.
//!
//! ```text
//!  one thread:  order ─▶ backend libraries, drivers ─▶ lock down ─▶ Ready ─▶ wait for Go
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
use std::io::ErrorKind;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use wick_engine::{Engine, EngineSettings};
use wick_nn::{Nn, NnSettings, Preloaded, Wanted};
use wick_package::DeviceKind;
use wick_sandbox::order::{CACHE_FULL, Go, Order, Phase, Report, Task, VERSION};
use wick_sandbox::{
    BACKENDS, CACHE, COMPONENTS, Channel, DRIVERS, Driver, LockdownError, Signals, Woken,
};

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::host::{self, Host};

use logging::Log;

/// Longest wait for the order: the shim sends it as soon as it has started this process.
const ORDER_DEADLINE: Duration = Duration::from_secs(30);

/// Heaps beside the first. Threads wait for each other's allocations a little more often, and
/// a pod keeps megabytes less of what was freed.
const HEAPS: u16 = 2;

/// The folder of optimised graphs in the node's cache, beside that of compiled components.
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
    /// What was done before there was a log.
    phases: Vec<Phase>,
    /// Backend libraries and drivers, which can't be mapped any more after the lockdown.
    mapped: Preloaded,
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
    let mut worker =
        Worker { channel, order, signals, start, phases: Vec::new(), mapped: Preloaded::default() };
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
        let mut phases = vec![Phase::since("order", self.start)];
        let libraries = Instant::now();
        if let Some(backends) = &self.order.backends {
            self.mapped = map(&self.order, backends)?;
        }
        phases.push(Phase::since("backends", libraries));
        let drivers: Vec<_> = self.mapped.drivers.iter().map(driver).collect();
        let locked = wick_sandbox::lock_down(&self.order, &drivers);
        phases.extend(locked.map_err(|error| refused(&error))?);
        // Not before: what a container says must not decide what is mapped.
        let variables = self.variables();
        wick_sandbox::set_variables(&variables).context("tell libraries of providers")?;
        let lost = |error: &dyn Display| {
            Failure::new(Exit::Failure, "channel", format_args!("the shim is gone: {error}"))
        };
        self.phases.clone_from(&phases);
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
        // There was no log when these were.
        trace(&std::mem::take(&mut self.phases));
        for refusal in &self.mapped.refused {
            tracing::debug!(what = refusal.what, "not mapped: {}", refusal.why);
        }
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
        let (package, _) = package::open(&self.order)?;
        // What is made in them is for workers of any user.
        let folders = [self.cache(COMPONENTS), self.cache(GRAPHS)];
        for folder in folders.into_iter().flatten() {
            let made = std::fs::create_dir_all(&folder);
            made.with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let host = self.host(settings)?;
        tokio::select! {
            loaded = host.engine.compile(&package) => {
                loaded.map_err(|error| Failure::of(&error))?;
                host.engine.unkept().map_or(Ok(ExitCode::SUCCESS), |error| Err(unkept(error)))
            }
            signal = signals.next() => Ok(ended_by(signal)),
        }
    }

    /// Tell the shim that containerd's Start is done.
    fn started(&mut self, addr: Option<String>, start: Instant) -> Outcome {
        let phases = vec![Phase::since("listen", start)];
        trace(&phases);
        let sent = self.channel.send(&Report::Started { addr, phases });
        sent.map_err(|error| {
            Failure::new(Exit::Failure, "channel", format_args!("the shim is gone: {error}"))
        })
    }

    /// Backends and cache are where the lockdown has put them.
    fn nn_settings(&self) -> NnSettings {
        let mut settings = NnSettings::detect();
        settings.onnxruntime = self.runtime();
        settings.backend_dirs = self.order.backends.iter().map(|_| BACKENDS.into()).collect();
        settings.cache = self.cache(GRAPHS);
        settings
    }

    /// The ONNX Runtime that was mapped.
    fn runtime(&self) -> Option<PathBuf> {
        let below = self.mapped.runtime.as_ref()?.strip_prefix(self.order.backends.as_ref()?);
        Some(Path::new(BACKENDS).join(below.ok()?))
    }

    /// What libraries of providers are told: where drivers are, and those of the container's variables that
    /// choose between devices.
    fn variables(&self) -> Vec<(String, String)> {
        let drivers = self.mapped.variables(Path::new(DRIVERS));
        let told = self.order.env.iter().filter_map(|variable| variable.split_once('='));
        let told = told.filter(|(name, _)| wick_nn::providers::may_be_told(name));
        let told = told.map(|(name, value)| (name.to_owned(), value.to_owned()));
        told.chain(drivers).collect()
    }

    fn host(&self, settings: NnSettings) -> Outcome<Host> {
        let cpus = settings.cpus;
        let cache = self.cache(COMPONENTS);
        let nn = Nn::new(settings).map_err(|error| Failure::of(&error))?;
        let settings = EngineSettings { cache, ..EngineSettings::default() };
        let engine = Engine::new(settings, nn).map_err(|error| Failure::of(&error))?;
        Ok(Host { engine, cpus })
    }

    fn cache(&self, name: &str) -> Option<PathBuf> {
        let folder = Path::new(CACHE).join(name);
        // A cache that can only be read has the folder or nothing for us.
        let usable = self.order.task == Task::Compile || folder.is_dir();
        (self.order.cache.is_some() && usable).then_some(folder)
    }
}

/// Map the libraries that the order's package may need.
fn map(order: &Order, backends: &Path) -> Outcome<Preloaded> {
    let wanted = |kind: &DeviceKind| order.accelerators.iter().any(|one| one == kind.as_str());
    let kinds: Vec<DeviceKind> = DeviceKind::ALL.into_iter().filter(wanted).collect();
    let drivers = order.devices.iter().filter(|device| device.kind == 'c');
    let nodes: Vec<PathBuf> = drivers.map(|device| device.path.clone()).collect();
    let variables = order.env.iter().filter_map(|variable| variable.split_once('='));
    let variables: Vec<&str> = variables.map(|(name, _)| name).collect();
    let folders = [backends.to_owned()];
    let wanted = Wanted { folders: &folders, kinds: &kinds, nodes: &nodes, variables: &variables };
    wick_nn::preload(wanted).map_err(|error| Failure::of(&error))
}

fn driver(file: &wick_nn::DriverFile) -> Driver {
    Driver { name: file.name.clone(), text: file.text.clone() }
}

/// What the process answers that `signal` has ended.
fn ended_by(signal: i32) -> ExitCode {
    ExitCode::from(u8::try_from(BY_SIGNAL + signal).unwrap_or(Exit::Failure.number()))
}

fn refused(error: &LockdownError) -> Failure {
    Failure::new(Exit::Failure, error.code(), error)
}

/// For a server it is a warning that a compiled component is not kept; here it was the task.
fn unkept(error: &std::io::Error) -> Failure {
    let full = matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
    let code = if full { CACHE_FULL } else { "cache" };
    Failure::new(Exit::Failure, code, format_args!("the compiled component is not kept: {error}"))
}

/// A span for each phase of the start, with times of its own since it is over. The event in it
/// is what a log shows.
fn trace(phases: &[Phase]) {
    for phase in phases {
        let span =
            tracing::debug_span!("start", phase = phase.name, at = phase.at, end = phase.end());
        span.in_scope(|| tracing::debug!(micros = phase.micros, "phase"));
    }
}
