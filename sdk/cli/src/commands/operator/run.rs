//! `wick operator run`: the operator in a cluster, or beside one.

use std::net::SocketAddr;

use anyhow::Context as _;
use kube::Client;
use wick_operator::shell::{self, Settings, ShellError};

use crate::commands::run::signals::Signals;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::registries::RegistryArgs;

/// Of the environment of every container in a cluster.
const IN_CLUSTER: &str = "KUBERNETES_SERVICE_HOST";

/// The name of this process where the pod gives none.
const IDENTITY: &str = "wick-operator";

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wick operator run                                     # in a pod, as the chart does
  wick operator run --namespace wick-system             # beside a cluster, with ~/.kube/config
  wick operator run --only team-a --mirror docker.io=mirror.example")]
pub struct RunArgs {
    /// The operator's own namespace, with its Lease and its activators
    #[arg(long, value_name = "NAME", env = "WICK_NAMESPACE", default_value = "wick-system")]
    namespace: String,
    /// Who it is among several operators; the pod's name
    #[arg(long, value_name = "NAME", env = "WICK_IDENTITY")]
    identity: Option<String>,
    /// Act for the Models of this namespace alone; for those of all namespaces otherwise
    #[arg(long, value_name = "NAMESPACE", env = "WICK_ONLY")]
    only: Option<String>,
    /// Answer /livez, /readyz and /metrics here
    #[arg(long, value_name = "ADDRESS", env = "WICK_LISTEN", default_value = "0.0.0.0:9090")]
    listen: SocketAddr,
    #[command(flatten)]
    registries: RegistryArgs,
}

pub fn run(args: &RunArgs) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start threads")?;
    runtime.block_on(serve(args))
}

async fn serve(args: &RunArgs) -> Outcome {
    let client = client().await?;
    let mut signals = Signals::listen()?;
    let identity = args.identity.clone().unwrap_or_else(identity);
    let settings = Settings {
        namespace: args.namespace.clone(),
        is_pod: is_pod(&identity),
        identity,
        only: args.only.clone(),
        listen: args.listen,
        registry: args.registries.settings(),
    };
    let ended = shell::run(client, settings, async { signals.next().await }).await;
    ended.map_err(|error| {
        let code = match &error {
            ShellError::Listen { .. } => "cannot-listen",
            ShellError::Metrics(_) => "internal",
            ShellError::LeaseLost => "lease-lost",
        };
        let failure = Failure::new(Exit::Unavailable, code, &error);
        failure.caused_by(std::error::Error::source(&error))
    })
}

/// Speaks to the cluster that the environment names: the pod's own, or that of the user's
/// kubeconfig.
pub async fn client() -> Outcome<Client> {
    // kube asks for the process's provider of cryptography.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::try_default().await.map_err(|error| {
        Failure::new(Exit::Unavailable, "no-cluster", "no cluster can be reached")
            .caused_by(Some(&error))
            .help("name one by KUBECONFIG, or run in a pod with a service account")
    })
}

fn identity() -> String {
    std::env::var("HOSTNAME").unwrap_or_else(|_| IDENTITY.to_owned())
}

/// Whether this is a pod of that name. One beside a cluster may be called anything.
fn is_pod(name: &str) -> bool {
    std::env::var_os(IN_CLUSTER).is_some() && std::env::var("HOSTNAME").is_ok_and(|it| it == name)
}
