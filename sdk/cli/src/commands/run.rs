//! `wick run`: serve packages until a signal comes, or run a command to its end.
//!
//! ```text
//!   bind ──▶ open packages ──▶ serve ──▶ load all ──▶ banner ──▶ signal ──▶ drain
//!              (live, not ready) └────────────┘ ready            second signal: end
//! ```
//!
//! The port is taken first: clients may connect while models load, and probes see a live
//! server that is not ready yet.

mod banner;
mod cycle;
mod edge;
mod explain;
mod grants;
mod job;
mod mqtt;
pub mod signals;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wick_engine::Grants;
use wick_serve::mqtt::{Mqtt, MqttSettings};
use wick_serve::{
    BindError, Bound, CycleSettings, Drained, Repository, RepositoryError, RepositorySettings,
    ServeSettings, Server, Source, Watch,
};

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::host::{self, Host, HostArgs};
use crate::output::{self, Format};
use crate::policy::PolicyArgs;
use crate::quantity;
use crate::registries::{self, ImageArgs, PullPolicy};

use cycle::CycleArgs;
use edge::EdgeArgs;
use grants::GrantArgs;
use mqtt::MqttArgs;
use signals::Signals;

/// Serve packages, or run a command package to its end
///
/// Answers the Open Inference Protocol, REST at /v2 and gRPC on the same port. The first SIGTERM or
/// Ctrl-C finishes the requests in work; the second ends at once.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wick run ./filetype ./ocr
  wick run ./filetype --watch --log-level debug
  wick run filetype.tar --addr 0.0.0.0:8080 --output json
  wick run registry.example.com/team/filetype:1.2.0
  wick run ./classify -- cat.png dog.png      a command package, as a job")]
pub struct RunArgs {
    /// Package directories, OCI layouts, their tars, or images, which are pulled if need be
    #[arg(required = true, value_name = "PACKAGE")]
    pub packages: Vec<PathBuf>,
    /// Arguments of a command package
    #[arg(last = true, value_name = "ARGUMENT")]
    pub guest_args: Vec<String>,
    /// Where to listen; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "HOST:PORT", env = "WICK_ADDR")]
    addr: SocketAddr,
    /// Load a package again when it changes, without a failed request
    #[arg(long)]
    watch: bool,
    /// Most bytes of a request's body, whatever packages allow
    #[arg(long, value_name = "SIZE", value_parser = quantity::size)]
    max_body: Option<u64>,
    /// Let requests load and unload models (/v2/repository), as Triton's explicit mode does
    #[arg(long)]
    model_control: bool,
    /// Serve no page for people at /v2/page
    #[arg(long)]
    no_page: bool,
    /// Time that requests have to finish after the first signal
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = quantity::duration)]
    drain: Duration,
    /// Send traces to an OpenTelemetry collector by OTLP over gRPC, such as http://localhost:4317
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,
    /// Check flags and packages, and serve nothing
    #[arg(long)]
    check_config: bool,
    /// Load the graphs, say for each where it runs and why nowhere else, and serve nothing
    #[arg(long)]
    explain: bool,
    /// When to ask the registry for an image
    #[arg(long, value_enum, default_value = "missing", value_name = "WHEN")]
    pull: PullPolicy,
    #[command(flatten)]
    cycle: CycleArgs,
    #[command(flatten)]
    edge: EdgeArgs,
    #[command(flatten)]
    grants: GrantArgs,
    #[command(flatten)]
    mqtt: MqttArgs,
    #[command(flatten)]
    policy: PolicyArgs,
    #[command(flatten)]
    images: ImageArgs,
    #[command(flatten)]
    host: HostArgs,
}

/// A server that runs in the background.
struct Serving {
    addr: SocketAddr,
    repository: Repository,
    stop: CancellationToken,
    task: JoinHandle<Drained>,
    mqtt: Option<JoinHandle<()>>,
}

pub fn run(mut args: RunArgs, format: Format) -> Outcome<ExitCode> {
    args.policy.load()?;
    let env = |name: &str| std::env::var(name).ok();
    let grants = args.grants.grants(env)?;
    args.mqtt.settings(&limits(&args), env)?;
    // What is held is not deleted from the store while it runs.
    let (packages, _held) = registries::have_all(&args.packages, &args.images, args.pull, format)?;
    for (asked, path) in args.packages.iter().zip(&packages) {
        args.policy.know(asked, path, &args.images)?;
    }
    args.packages = packages;
    if args.check_config {
        return check_config(&args, format);
    }
    if args.explain {
        return explain::run(&args, format);
    }
    if !args.guest_args.is_empty() && args.packages.len() > 1 {
        return Err(Failure::usage("arguments after `--` are for one package"));
    }
    wick_sandbox::return_large_blocks();
    let cpus = args.host.nn_settings().cpus;
    host::block_on(cpus, start(args, grants, format))
}

async fn start(args: RunArgs, grants: Grants, format: Format) -> Outcome<ExitCode> {
    let mut signals = Signals::listen()?;
    if !args.guest_args.is_empty() {
        return job::run(&args, &args.host.host()?, grants, &mut signals).await;
    }
    let bound = Server::bind(settings(&args)?).await.map_err(|error| bind_failure(&error));
    let host = args.host.host()?;
    // Only loading tells whether a package is a command, which needs no port: a port
    // that is taken must not keep it from running.
    let bound = match bound {
        Ok(bound) => bound,
        Err(failure) if args.packages.len() == 1 && job::is_command(&args, &host).await => {
            tracing::debug!(code = failure.code(), "no port, and none is needed");
            return job::run(&args, &host, grants, &mut signals).await;
        }
        Err(failure) => return Err(failure),
    };
    match serve(&args, &host, grants.clone(), bound, &mut signals, format).await {
        Err(RunError::Command) => job::run(&args, &host, grants, &mut signals).await,
        Err(RunError::Failed(failure)) => Err(failure),
        Ok(code) => Ok(code),
    }
}

/// Why nothing is served.
enum RunError {
    /// The only package is a command.
    Command,
    Failed(Failure),
}

async fn serve(
    args: &RunArgs,
    host: &Host,
    grants: Grants,
    bound: Bound,
    signals: &mut Signals,
    format: Format,
) -> Result<ExitCode, RunError> {
    let mut serving = Serving::start(args, host, grants, bound).await.map_err(RunError::Failed)?;
    let failures = tokio::select! {
        failures = serving.repository.load_all() => failures,
        () = signals.next() => return serving.end(signals, format).await.map_err(RunError::Failed),
    };
    if let [(_, RepositoryError::Command { .. })] = &failures[..]
        && args.packages.len() == 1
    {
        serving.abort().await;
        return Err(RunError::Command);
    }
    if !failures.is_empty() && !args.watch {
        serving.abort().await;
        return Err(RunError::Failed(load_failure(&failures)));
    }
    // Who watches is about to mend what is broken.
    for (_, error) in &failures {
        Failure::repository(error).report(Format::Human);
    }
    serving.watch(args.watch).map_err(RunError::Failed)?;
    let mqtt = args.mqtt.settings(&limits(args), |name| std::env::var(name).ok());
    serving.mqtt(mqtt.map_err(RunError::Failed)?).map_err(RunError::Failed)?;
    let url = format!("{}://{}", args.edge.scheme(), serving.addr);
    banner::print(&url, &serving.repository, args.watch, format);
    signals.next().await;
    serving.end(signals, format).await.map_err(RunError::Failed)
}

// === impl Serving ===

impl Serving {
    /// Open the packages and answer requests, of which none can be served yet.
    async fn start(args: &RunArgs, host: &Host, grants: Grants, bound: Bound) -> Outcome<Self> {
        let settings = RepositorySettings { cpus: host.cpus, drain: args.drain };
        let cycle = CycleSettings { opener: args.policy.opener(), ..args.cycle.settings() };
        let repository = Repository::with_cycle(host.engine.clone(), settings, cycle);
        let repository = repository.map_err(|error| Failure::repository(&error))?;
        for path in &args.packages {
            let source = Source { path: path.clone(), grants: grants.clone() };
            repository.add(source).await.map_err(|error| Failure::repository(&error))?;
        }
        let addr = bound.local_addr();
        let stop = CancellationToken::new();
        let task = tokio::spawn(bound.serve(repository.clone(), stop.clone()));
        Ok(Self { addr, repository, stop, task, mqtt: None })
    }

    /// Answer over a broker as well. It starts when models are loaded, since a broker hands
    /// over requests at once.
    fn mqtt(&mut self, settings: Option<MqttSettings>) -> Outcome {
        let Some(settings) = settings else { return Ok(()) };
        let front = Mqtt::new(self.repository.clone(), settings).map_err(anyhow::Error::new)?;
        self.mqtt = Some(tokio::spawn(front.run(self.stop.clone())));
        Ok(())
    }

    fn watch(&self, wanted: bool) -> Outcome {
        if wanted {
            let watch = Watch::new(self.repository.clone()).map_err(|error| {
                let source = std::error::Error::source(&error);
                Failure::new(Exit::Failure, "watch", &error).caused_by(source)
            })?;
            tokio::spawn(watch.run(self.stop.clone()));
        }
        Ok(())
    }

    /// Finish what was begun; a second signal ends the process at once.
    async fn end(self, signals: &mut Signals, format: Format) -> Outcome<ExitCode> {
        self.stop.cancel();
        if format == Format::Human {
            eprintln!("finishing requests; a second signal ends at once");
        }
        let drained = async {
            if let Some(mqtt) = self.mqtt {
                mqtt.await?;
            }
            self.task.await
        };
        tokio::select! {
            drained = drained => {
                let drained = drained.map_err(anyhow::Error::new)?;
                tracing::info!(cut_off = drained.cut_off, "stopped");
                Ok(ExitCode::SUCCESS)
            }
            () = signals.next() => Ok(Exit::Interrupted.into()),
        }
    }

    async fn abort(self) {
        // The front over a broker starts later than anything that aborts.
        self.task.abort();
        // It was told to end; how it ended says nothing.
        let _ = self.task.await;
    }
}

fn settings(args: &RunArgs) -> Outcome<ServeSettings> {
    let mut settings = limits(args);
    args.edge.apply(&mut settings)?;
    Ok(settings)
}

/// The settings that need no file.
fn limits(args: &RunArgs) -> ServeSettings {
    let mut settings = ServeSettings {
        addr: args.addr,
        drain: args.drain,
        model_control: args.model_control,
        page: !args.no_page,
        ..Default::default()
    };
    if let Some(max_body) = args.max_body {
        settings.max_body = max_body;
        settings.max_body_memory = settings.max_body_memory.max(max_body);
    }
    settings
}

fn bind_failure(error: &BindError) -> Failure {
    let (code, help) = match error {
        BindError::InUse { .. } => {
            ("address-in-use", Some("stop what listens there, or give --addr 127.0.0.1:0"))
        }
        _ => ("address", None),
    };
    let source = std::error::Error::source(error);
    let failure = Failure::new(Exit::Unavailable, code, error).caused_by(source);
    match help {
        Some(help) => failure.help(help),
        None => failure,
    }
}

/// The first failure, and the others beside it.
fn load_failure(failures: &[(String, RepositoryError)]) -> Failure {
    let mut all = failures.iter().map(|(_, error)| Failure::repository(error));
    let first = all.next().unwrap_or_else(|| Failure::new(Exit::Failure, "failed", "not loaded"));
    for other in all {
        other.report(Format::Human);
    }
    first
}

fn check_config(args: &RunArgs, format: Format) -> Outcome<ExitCode> {
    settings(args)?;
    let mut names = std::collections::BTreeMap::new();
    for path in &args.packages {
        let package = args.policy.open(path)?;
        let name = package.manifest().name.to_string();
        let version = package.manifest().version.clone();
        if let Some(other) = names.insert((name.clone(), version.clone()), path) {
            let (first, second) = (other.display(), path.display());
            let text =
                format!("two packages are version {version} of `{name}`: {first} and {second}");
            return Err(Failure::new(Exit::BadData, "model-twice", text));
        }
    }
    let mut names: Vec<_> = names.into_keys().map(|(name, _)| name).collect();
    names.dedup();
    match format {
        Format::Json => output::json(&json!({ "ok": true, "models": names })),
        _ => output::line(format_args!("{} {}", output::green("ok:"), names.join(", "))),
    }
    Ok(ExitCode::SUCCESS)
}
