//! The operator in a cluster: watches, the loop that gives Models their turns, and the election
//! of the one that acts. It decides nothing: `turn` does.

mod apply;
mod cluster;
mod demands;
mod http;
mod index;
mod lease;
mod metrics;
mod ports;
mod queue;
mod reconcile;
mod resolve;
mod server;
mod workers;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::StreamExt as _;
use kube::Client;
use kube::runtime::controller::{self, Action, applier};
use kube::runtime::events::{Recorder, Reporter};
use parking_lot::Mutex;
use tokio::task::JoinSet;

use crate::desired::MANAGER;
use crate::time::Moment;
use cluster::{Cluster, Scope};
use demands::Demands;
use http::Asker;
use lease::Election;
use metrics::Metrics;
use ports::Ports;
use queue::Key;
pub use reconcile::COMMAND;
use reconcile::Operator;
use resolve::Resolver;
use server::Readiness;
use workers::Workers;

/// Changes of one Model that come within this time get one turn.
const DEBOUNCE: Duration = Duration::from_millis(5);

/// Models that have their turns at the same time. A turn waits for the API server most of the time.
const AT_ONCE: u16 = 32;

/// The name of the Lease.
const LEASE: &str = "wick-operator";

/// How the operator runs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The operator's own namespace: its Lease and its activators are there.
    pub namespace: String,
    /// Who it is, among several operators.
    pub identity: String,
    /// Whether that is the name of its pod, in its own namespace.
    pub is_pod: bool,
    /// The only namespace whose Models it acts for. None: all.
    pub only: Option<String>,
    /// For health and metrics.
    pub listen: SocketAddr,
    /// How registries are reached.
    pub registry: wick_registry::Settings,
}

/// Why the operator ended.
#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    #[error("cannot listen on {listen}")]
    Listen { listen: SocketAddr, source: std::io::Error },
    #[error("cannot make metrics")]
    Metrics(#[from] prometheus::Error),
    #[error("another operator has taken the Lease; this one ends, and starts anew as a standby")]
    LeaseLost,
}

/// What time it is. The only clock of the operator.
pub fn now() -> Moment {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Moment::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Runs until `stop`, or until the Lease is lost.
///
/// # Errors
/// The port is taken, or another operator acts now.
pub async fn run(
    client: Client,
    settings: Settings,
    stop: impl Future<Output = ()>,
) -> Result<(), ShellError> {
    let metrics = Metrics::new()?;
    let ready = Readiness::default();
    let listen = settings.listen;
    let listener =
        server::bind(listen).await.map_err(|source| ShellError::Listen { listen, source })?;
    let mut tasks = JoinSet::new();
    tasks.spawn(server::serve(listener, metrics.clone(), ready.clone()));

    let (queue, changes) = queue::queue();
    let scope = Scope { namespace: settings.only.as_deref(), own: &settings.namespace };
    let cluster = Cluster::watch(&client, &scope, &queue, &mut tasks);
    let mut election = Election::new(client.clone(), LEASE, &settings);
    let mut stop = std::pin::pin!(stop);
    // Nothing is lost if any of these is dropped: the Lease runs out by itself.
    tokio::select! {
        () = &mut stop => return Ok(()),
        () = async { cluster.ready().await; ready.set(); election.won().await } => {}
    }
    metrics.leads(true);
    tracing::info!(identity = settings.identity, "this operator acts");

    let asker = Asker::new();
    let reporter =
        Reporter { controller: MANAGER.to_owned(), instance: Some(settings.identity.clone()) };
    let operator = Arc::new(Operator {
        recorder: Recorder::new(client.clone(), reporter),
        demands: Demands::new(asker.clone(), queue.clone()),
        workers: Workers::new(asker),
        resolver: Resolver::new(client.clone(), settings.registry, queue.clone()),
        ports: taken(&cluster),
        known: Mutex::default(),
        metrics: metrics.clone(),
        client,
        cluster,
    });
    let turns = turns(operator, queue, changes);
    // The loop is only ever dropped: what it was about to do is decided anew by the next.
    let ended = tokio::select! {
        () = stop => Ok(()),
        () = turns => Ok(()),
        () = election.lost() => Err(ShellError::LeaseLost),
    };
    metrics.leads(false);
    if ended.is_ok() {
        election.release().await;
    }
    ended
}

/// The ports that Models have had before.
fn taken(cluster: &Cluster) -> Ports {
    let ports = Ports::default();
    for model in cluster.models.state() {
        let activator = model.status.as_ref().and_then(|status| status.activator);
        let port = activator.and_then(|activator| u16::try_from(activator.port).ok());
        if let (Some(key), Some(port)) = (reconcile::key(&model), port) {
            ports.of(&key, Some(port));
        }
    }
    ports
}

/// Gives Models their turns, forever.
async fn turns(
    operator: Arc<Operator>,
    queue: queue::Queue,
    changes: impl futures::Stream<Item = kube::runtime::reflector::ObjectRef<wick_api::Model>>,
) {
    let store = operator.cluster.models.clone();
    // Whatever happened before this operator acted.
    let all: Vec<Key> = store.state().iter().filter_map(|model| reconcile::key(model)).collect();
    tokio::spawn(async move {
        for key in all {
            queue.add(key).await;
        }
    });
    let changes = changes.map(Ok::<_, kube::runtime::watcher::Error>);
    let config = controller::Config::default().debounce(DEBOUNCE).concurrency(AT_ONCE);
    let failed =
        |model: Arc<wick_api::Model>, error: &reconcile::TurnError, operator: Arc<Operator>| {
            let wait = operator.again(&model);
            let name = reconcile::key(&model).map(|key| key.to_string());
            tracing::warn!(
                model = name,
                error = error as &dyn std::error::Error,
                ?wait,
                "a turn failed"
            );
            Action::requeue(wait)
        };
    let gone = Arc::clone(&operator);
    let turns = applier(
        |model, operator| Box::pin(reconcile::reconcile(model, operator)),
        failed,
        operator,
        store,
        changes,
        config,
    );
    turns
        .for_each(|result| {
            if let Err(controller::Error::ObjectNotFound(model)) = result {
                let namespace = model.namespace.clone().unwrap_or_default();
                gone.forget(&Key { namespace, name: model.name.clone() });
            }
            std::future::ready(())
        })
        .await;
}
