//! `wick activator`: takes requests of Models on Kubernetes that have no pod yet, or whose
//! traffic is split.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use wick_operator::activator::table::Table;
use wick_operator::activator::{Activator, Settings, everywhere, file, source};

use crate::commands::run::signals::Signals;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::host;
use crate::output::{self, Format};
use crate::quantity;

/// Threads beside those that move bytes: for the API server, the control port and probes.
const WORKERS: usize = 1;

/// Where the control port is unless told otherwise.
const CONTROL: u16 = 9090;

/// The activator of Models on Kubernetes
#[derive(Debug, clap::Args)]
pub struct ActivatorArgs {
    #[command(subcommand)]
    command: ActivatorCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ActivatorCommand {
    /// Hold requests of Models without pods, divide those of Models with several revisions
    ///
    /// Reads Models and Pods from the API server and writes nothing. SIGTERM refuses what waits
    /// and finishes what was sent; a second one ends at once.
    Run(RunArgs),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wick activator run                      in a pod, with the pod's service account
  wick activator run --table table.json   without a cluster")]
struct RunArgs {
    /// Read this file, again when it changes, and no API server
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
    /// Take requests for the Models of this namespace alone; for those of all namespaces otherwise
    #[arg(long, value_name = "NAMESPACE", env = "WICK_ONLY", conflicts_with = "table")]
    only: Option<String>,
    /// Address that Models' ports are listened on; all of this machine's by default
    #[arg(long, value_name = "IP")]
    bind: Option<IpAddr>,
    /// Where health, metrics and the demand of Models are; port 9090 of all addresses by default
    #[arg(long, value_name = "HOST:PORT")]
    control: Option<SocketAddr>,
    /// Time that requests have to finish after the first signal
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = quantity::duration)]
    drain: Duration,
    /// Threads that move bytes; as many as there are cores by default
    #[arg(long, value_name = "NUMBER")]
    threads: Option<usize>,
}

pub fn run(args: &ActivatorArgs, format: Format) -> Outcome<ExitCode> {
    match &args.command {
        ActivatorCommand::Run(args) => host::block_on(WORKERS, serve(args, format)),
    }
}

async fn serve(args: &RunArgs, format: Format) -> Outcome<ExitCode> {
    let mut signals = Signals::listen()?;
    let (sender, table) = watch::channel(Table::default());
    let mut sources = JoinSet::new();
    match &args.table {
        Some(path) => {
            // A mistake in it is told at once; later ones only in the log.
            file::read(path).map_err(|error| {
                Failure::new(Exit::BadData, "bad-table", &error)
                    .caused_by(std::error::Error::source(&error))
            })?;
            sources.spawn(file::follow(path.clone(), sender));
        }
        None => {
            let client = source::client().await.map_err(|error| {
                Failure::new(Exit::Unavailable, "no-cluster", "cannot reach an API server")
                    .caused_by(Some(&error))
                    .help("run it in a pod, set KUBECONFIG, or give --table")
            })?;
            sources.spawn(source::follow(client, args.only.clone(), sender));
        }
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let settings = Settings {
        bind: vec![args.bind.unwrap_or_else(everywhere)],
        control: args.control.unwrap_or_else(|| (everywhere(), CONTROL).into()),
        threads: args.threads.unwrap_or(cores),
        drain: args.drain,
    };
    let mut activator = Activator::start(settings, table).await.map_err(|error| {
        Failure::new(Exit::Unavailable, "cannot-start", &error)
            .caused_by(std::error::Error::source(&error))
    })?;
    tracing::info!(control = %activator.control(), "the activator runs");
    tokio::select! {
        // Waits for a flag, which stays.
        () = activator.ready() => {}
        // No table yet, so nothing to drain.
        () = signals.next() => return Ok(ExitCode::SUCCESS),
    }
    let control = activator.control();
    match format {
        Format::Json => output::json(&json!({"control": format!("http://{control}")})),
        Format::Human | Format::Raw => {
            output::line(format_args!("ready, control port at {control}"));
        }
    }
    signals.next().await;
    tracing::info!("the activator ends");
    tokio::select! {
        // Finishes by its own deadline.
        drained = activator.drain() => tracing::info!(cut_off = drained.cut_off, "drained"),
        // Whoever says it twice does not want to wait.
        () = signals.next() => {}
    }
    Ok(ExitCode::SUCCESS)
}
