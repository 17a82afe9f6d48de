//! The package of a container: served, or run if it is a command. The port is taken first, so
//! that probes see a live server while the package loads.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wick_engine::Model;
use wick_nn::NnSettings;
use wick_serve::{
    BindError, Bound, CycleSettings, Drained, Repository, RepositoryError, RepositorySettings,
    ServeSettings, Server, Source,
};

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};

use super::signals::Listening;
use super::{Worker, job, package};

/// Where a worker listens unless the pod says otherwise.
const ADDR: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 8080);

/// How long a worker answers on after SIGTERM unless the pod says otherwise. kube-proxy gathers
/// changes for up to a second before it rewrites a Service's rules; half a second is for their
/// way there.
const LINGER: Duration = Duration::from_millis(1500);

/// A server in the background.
struct Serving {
    stop: CancellationToken,
    task: JoinHandle<Drained>,
}

/// What a load came to.
enum Loaded {
    Served,
    Command(Model),
    /// Asked to end before that.
    Signal,
}

/// Serve the package until a signal comes, or run it to its end.
///
/// # Errors
/// It can't be opened, loaded or warmed, or the port can't be had.
pub async fn run(worker: &mut Worker, nn: NnSettings, start: Instant) -> Outcome<ExitCode> {
    let settings = settings(worker)?;
    let drain = settings.drain;
    // A command needs no port, and what it is shows when it is loaded.
    let bound = Server::bind(settings).await;
    if let Ok(bound) = &bound {
        worker.started(Some(bound.local_addr().to_string()), start)?;
    }
    let (package, grants) = package::open(&worker.order)?;
    let bound = match bound {
        // Without code of its own it is no command.
        Err(error) if package.manifest().handler.is_none() => return Err(bind_failure(&error)),
        bound => bound,
    };
    let host = worker.host(nn)?;
    let settings = RepositorySettings { cpus: host.cpus, drain };
    let cycle = CycleSettings {
        give_back: Some(wick_sandbox::trim_heaps),
        max_device_memory: worker.order.settings.device_memory,
        ..CycleSettings::default()
    };
    let repository = Repository::with_cycle(host.engine.clone(), settings, cycle);
    let repository = repository.map_err(|error| Failure::repository(&error))?;
    let source = Source { path: package.path().to_owned(), grants };
    let name = repository.add_package(package, source);
    let name = name.map_err(|error| Failure::repository(&error))?;
    let serving = bound.map(|bound| Serving::start(bound, &repository));
    let mut signals = Listening::new(&worker.signals)?;
    let loaded = load(&repository, &name, &mut signals).await;
    // What loading has freed is not needed again soon.
    wick_sandbox::trim_heaps();
    match (loaded?, serving) {
        (Loaded::Command(model), serving) => {
            match serving {
                Ok(serving) => serving.abort().await,
                Err(_) => worker.started(None, start)?,
            }
            job::run(worker, model).await
        }
        (_, Err(error)) => Err(bind_failure(&error)),
        (Loaded::Signal, Ok(serving)) => serving.end(&mut signals).await,
        (Loaded::Served, Ok(serving)) => {
            // Nor is the code that only loading runs. A command goes on with it at once.
            wick_sandbox::return_program();
            if worker.order.args.len() > 1 {
                tracing::warn!("a server takes no arguments: those of the container are ignored");
            }
            let signal = signals.next().await;
            tracing::info!(signal, "finishing requests");
            serving.end(&mut signals).await
        }
    }
}

async fn load(repository: &Repository, name: &str, signals: &mut Listening) -> Outcome<Loaded> {
    tokio::select! {
        loaded = repository.load(name) => match loaded {
            Ok(()) => Ok(Loaded::Served),
            Err(error @ RepositoryError::Command { .. }) => {
                let command = repository.take_command(name).map(Loaded::Command);
                command.ok_or_else(|| Failure::repository(&error))
            }
            Err(error) => Err(Failure::repository(&error)),
        },
        _ = signals.next() => Ok(Loaded::Signal),
    }
}

fn settings(worker: &Worker) -> Outcome<ServeSettings> {
    let mut settings = ServeSettings { addr: ADDR, linger: LINGER, ..ServeSettings::default() };
    let wanted = &worker.order.settings;
    if let Some(addr) = &wanted.addr {
        settings.addr = addr.parse().map_err(|_| {
            Failure::usage(format_args!("wick.dev/addr: `{addr}` is no address and port"))
                .help("write it like 0.0.0.0:8080")
        })?;
    }
    if let Some(drain) = wanted.drain_ms {
        settings.drain = Duration::from_millis(drain);
    }
    if let Some(linger) = wanted.linger_ms {
        settings.linger = Duration::from_millis(linger);
    }
    Ok(settings)
}

fn bind_failure(error: &BindError) -> Failure {
    let code = match error {
        BindError::InUse { .. } => "address-in-use",
        _ => "address",
    };
    Failure::new(Exit::Unavailable, code, error)
        .caused_by(std::error::Error::source(error))
        .help("the annotation wick.dev/addr chooses another port")
}

// === impl Serving ===

impl Serving {
    /// Answer requests, of which none can be served yet.
    fn start(bound: Bound, repository: &Repository) -> Self {
        let stop = CancellationToken::new();
        let task = tokio::spawn(bound.serve(repository.clone(), stop.clone()));
        Self { stop, task }
    }

    /// Finish what was begun; a second signal ends the process at once.
    async fn end(self, signals: &mut Listening) -> Outcome<ExitCode> {
        self.stop.cancel();
        tokio::select! {
            drained = self.task => {
                let drained = drained.map_err(anyhow::Error::new)?;
                tracing::info!(cut_off = drained.cut_off, "stopped");
                Ok(ExitCode::SUCCESS)
            }
            _ = signals.next() => Ok(Exit::Interrupted.into()),
        }
    }

    async fn abort(self) {
        self.task.abort();
        // It was told to end; how it ended says nothing.
        let _ = self.task.await;
    }
}
