//! `wick agent run`.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::pin::pin;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use wick_agent::target::{Kubernetes, KubernetesSettings, Local, LocalError, LocalSettings};
use wick_agent::{Agent, AgentSettings, Home};
use wick_package::Digest;
use wick_registry::Store;
use wick_serve::{Opener, ServeSettings};

use super::{StateArgs, agent_failure, keep_failure};
use crate::commands::operator::run::client;
use crate::commands::run::signals::Signals;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::host::{self, HostArgs};
use crate::policy::PolicyArgs;
use crate::quantity;
use crate::registries::RegistryArgs;

/// Threads of an agent that serves nothing itself.
const CLUSTER_WORKERS: usize = 1;

/// After this time a start is over, and what it alone has needed of the program is handed back: an agent of a
/// cluster then waits, and a gateway has little memory.
const STARTED: Duration = Duration::from_secs(20);

/// What a site's models run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum TargetKind {
    /// In this process, without Kubernetes.
    Local,
    /// As Models of a cluster, whose operator does the rest.
    Kubernetes,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wick agent run --addr 0.0.0.0:8080 --bandwidth 2MiB
  wick agent run --target kubernetes --namespace models      # in a pod, as the chart does")]
pub struct RunArgs {
    #[command(flatten)]
    state: StateArgs,
    /// What models run on
    #[arg(long, value_enum, default_value = "local", env = "WICK_AGENT_TARGET")]
    target: TargetKind,
    /// Where to answer requests (local)
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8080", env = "WICK_ADDR")]
    addr: SocketAddr,
    /// Where Models are applied (kubernetes)
    #[arg(long, value_name = "NAME", default_value = "default", env = "WICK_NAMESPACE")]
    namespace: String,
    /// Answer /livez, /readyz, /metrics and /v1/status here
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9090", env = "WICK_CONTROL")]
    control: SocketAddr,
    /// Most bytes a second that are fetched (local)
    #[arg(long, value_name = "SIZE", value_parser = bandwidth, env = "WICK_BANDWIDTH")]
    bandwidth: Option<NonZeroU64>,
    /// How often the hub is told how requests went, when there were some
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = quantity::duration)]
    telemetry: Duration,
    #[command(flatten)]
    policy: PolicyArgs,
    #[command(flatten)]
    registries: RegistryArgs,
    #[command(flatten)]
    host: HostArgs,
}

pub fn run(args: &RunArgs) -> Outcome {
    let home = Home::open(&args.state.state).map_err(|error| keep_failure(&error))?;
    let settings =
        AgentSettings { converge: None, telemetry: args.telemetry, control: args.control };
    let agent = Agent::open(home, settings).map_err(|error| agent_failure(&error))?;
    let stop = CancellationToken::new();
    match args.target {
        TargetKind::Local => {
            let cpus = args.host.nn_settings().cpus;
            let work = local(args, agent, stop.clone());
            host::block_on(cpus, until_signal(stop, work))
        }
        TargetKind::Kubernetes => {
            let work = kubernetes(args, agent, stop.clone());
            host::block_on(CLUSTER_WORKERS, until_signal(stop, work))
        }
    }
}

async fn local(args: &RunArgs, agent: Agent, stop: CancellationToken) -> Outcome {
    wick_sandbox::return_large_blocks();
    let host = args.host.host()?;
    let settings = LocalSettings {
        serve: ServeSettings { addr: args.addr, ..ServeSettings::default() },
        engine: host.engine,
        cpus: host.cpus,
        opener: opener(args, &agent)?,
        registry: args.registries.settings(),
        bandwidth: args.bandwidth,
        give_back: None,
    };
    let bound = Local::bind(&agent.home, settings, agent.events()).await;
    let (target, bound) = bound.map_err(|error| local_failure(&error))?;
    tracing::info!(site = %agent.site.site, addr = %bound.local_addr(), "serving");
    let serving = target.clone();
    let ending = stop.clone();
    let served = tokio::spawn(async move { serving.serve(bound, ending).await });
    let ran = agent.run(target, stop.clone(), listening).await;
    stop.cancel();
    drop(served.await);
    ran.map_err(|error| agent_failure(&error))
}

async fn kubernetes(args: &RunArgs, agent: Agent, stop: CancellationToken) -> Outcome {
    let settings = KubernetesSettings {
        client: client().await?,
        namespace: args.namespace.clone(),
        site: agent.site.site.clone(),
    };
    let target = Kubernetes::new(settings, agent.events());
    let watching = target.clone();
    let ending = stop.clone();
    let watch = tokio::spawn(async move { watching.watch(ending).await });
    tokio::spawn(async {
        tokio::time::sleep(STARTED).await;
        wick_sandbox::trim_heaps();
        wick_sandbox::return_program();
    });
    let ran = agent.run(target, stop.clone(), listening).await;
    stop.cancel();
    drop(watch.await);
    ran.map_err(|error| agent_failure(&error))
}

fn listening(addr: SocketAddr) {
    tracing::info!(%addr, "control port");
}

/// Do it until it ends: the first signal asks for that, the second does not wait.
async fn until_signal(stop: CancellationToken, work: impl Future<Output = Outcome>) -> Outcome {
    let mut signals = Signals::listen()?;
    let mut work = pin!(work);
    tokio::select! {
        done = &mut work => return done,
        () = signals.next() => stop.cancel(),
    }
    tokio::select! {
        done = &mut work => done,
        () = signals.next() => {
            Err(Failure::new(Exit::Interrupted, "interrupted", "ended with requests in work"))
        }
    }
}

/// Opens packages under the site's policy, with the signatures that came with them.
fn opener(args: &RunArgs, agent: &Agent) -> Outcome<Opener> {
    let mut policy = args.policy.clone();
    policy.load()?;
    let store = Store::open(agent.home.store()).map_err(|error| Failure::stored(&error))?;
    Ok(policy.opener_of(move |path| {
        let name = path.file_name().and_then(|name| name.to_str());
        let digest: Option<Digest> = name.and_then(|hex| format!("sha256:{hex}").parse().ok());
        digest
            .and_then(|digest| store.find(&digest.to_string()).ok())
            .map(|image| (store.clone(), image))
    }))
}

fn bandwidth(text: &str) -> Result<NonZeroU64, String> {
    NonZeroU64::new(quantity::size(text)?).ok_or_else(|| "it must be more than nothing".to_owned())
}

fn local_failure(error: &LocalError) -> Failure {
    match error {
        LocalError::Bind(error) => {
            let source = std::error::Error::source(error);
            Failure::new(Exit::Unavailable, "address-in-use", error).caused_by(source)
        }
        LocalError::Store(error) => Failure::stored(error),
        LocalError::Registry(error) => Failure::of(error),
        LocalError::Repository(error) => Failure::repository(error),
    }
}
