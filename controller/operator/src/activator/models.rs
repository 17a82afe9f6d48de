//! The Models that an activator listens for: they come and go with the table.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::listener;
use super::model::Model;
use super::probe;
use super::shared::Shared;
use super::table::{ModelName, Table};

/// How long after a port could not be had it is tried again.
const BIND_PAUSE: Duration = Duration::from_secs(1);

/// Models by name, for all who look at them.
#[derive(Default)]
pub struct Models(RwLock<BTreeMap<ModelName, Arc<Model>>>);

/// Keeps the Models as the table has them.
pub struct Keeper {
    shared: Arc<Shared>,
    models: Arc<Models>,
    bind: Vec<IpAddr>,
    /// The ports that are listened on, and the Model's prober.
    kept: BTreeMap<ModelName, Kept>,
}

struct Kept {
    port: u16,
    /// Fewer than addresses if some could not be had.
    listeners: Vec<JoinHandle<()>>,
    missing: Vec<IpAddr>,
    prober: JoinHandle<()>,
}

// === impl Models ===

impl Models {
    pub fn all(&self) -> Vec<Arc<Model>> {
        self.0.read().values().cloned().collect()
    }

    pub fn get(&self, name: &ModelName) -> Option<Arc<Model>> {
        self.0.read().get(name).cloned()
    }
}

// === impl Keeper ===

impl Keeper {
    pub fn new(shared: Arc<Shared>, models: Arc<Models>, bind: Vec<IpAddr>) -> Self {
        Self { shared, models, bind, kept: BTreeMap::new() }
    }

    /// Follow the table until the activator ends; `known` says that it was followed once.
    pub async fn run(mut self, mut table: watch::Receiver<Table>, known: watch::Sender<bool>) {
        let draining = self.shared.draining.clone();
        loop {
            tokio::select! {
                // The value stays, whether or not its change was seen.
                changed = table.changed() => {
                    if changed.is_err() {
                        // Whoever knows what changes is gone; what is known stays.
                        draining.cancelled().await;
                        break;
                    }
                    let now = table.borrow_and_update().clone();
                    self.take_over(&now).await;
                    known.send_replace(true);
                }
                // A clock of its own for each turn.
                () = tokio::time::sleep(BIND_PAUSE), if self.is_missing_any() => self.listen(),
                // A flag, which stays.
                () = draining.cancelled() => break,
            }
        }
        for kept in self.kept.into_values() {
            kept.end().await;
        }
    }

    async fn take_over(&mut self, table: &Table) {
        let stays = |(name, kept): (&ModelName, &Kept)| {
            table.models.get(name).is_some_and(|route| route.port == kept.port)
        };
        let gone: Vec<ModelName> =
            self.kept.iter().filter(|one| !stays(*one)).map(|(name, _)| name.clone()).collect();
        // Ports are given back first: another Model may have them now.
        for name in gone {
            if let Some(kept) = self.kept.remove(&name) {
                kept.end().await;
            }
            if !table.models.contains_key(&name)
                && let Some(model) = self.models.0.write().remove(&name)
            {
                model.leave();
            }
        }
        let threads = self.shared.threads();
        for (name, route) in &table.models {
            let known = self.models.get(name);
            if let Some(known) = &known {
                known.set(route.clone(), threads);
            }
            if self.kept.contains_key(name) {
                continue;
            }
            let model = known.unwrap_or_else(|| {
                let model = Arc::new(Model::new(name.clone(), route.clone(), threads));
                self.models.0.write().insert(name.clone(), Arc::clone(&model));
                model
            });
            let prober = tokio::spawn(probe::run(model));
            let missing = self.bind.clone();
            let kept = Kept { port: route.port, listeners: Vec::new(), missing, prober };
            self.kept.insert(name.clone(), kept);
        }
        self.listen();
    }

    fn is_missing_any(&self) -> bool {
        self.kept.values().any(|kept| !kept.missing.is_empty())
    }

    /// Listen wherever nobody does yet.
    fn listen(&mut self) {
        for (name, kept) in &mut self.kept {
            let Some(model) = self.models.get(name) else { continue };
            let (port, shared, listeners) = (kept.port, &self.shared, &mut kept.listeners);
            kept.missing.retain(|&address| match listener::bind(SocketAddr::new(address, port)) {
                Ok(listener) => {
                    let (shared, model) = (Arc::clone(shared), Arc::clone(&model));
                    listeners.push(tokio::spawn(listener::listen(listener, shared, model)));
                    false
                }
                Err(error) => {
                    tracing::error!(model = %name, %address, port, %error, "cannot listen");
                    true
                }
            });
        }
    }
}

// === impl Kept ===

impl Kept {
    /// Its ports are free when this returns.
    async fn end(self) {
        for task in self.listeners.into_iter().chain([self.prober]) {
            task.abort();
            // It was aborted, which is an error here.
            drop(task.await);
        }
    }
}
