//! The activator: takes requests of Models that are cold or whose traffic is split, each Model on
//! a port of its own; holds them while no pod is ready, divides them among revisions, and tells
//! the operator what is asked.
//!
//! ```text
//!  API server ─▶ source ─┐
//!        file ─▶ file ───┴─▶ Table ─▶ models ─▶ listener ─▶ forward ─▶ upstream ─▶ pod
//!                                        │         │   hold, choose        ▲
//!                                        └ probe ──┼────── is it ready? ───┘
//!                               operator ◀─ control: demand, metrics
//! ```
//!
//! What is decided is pure (`choose`, `hold`, `head`, `demand`); the rest performs it. It reads
//! the API server and writes nothing, and knows nothing of how pods come to be.

mod answer;
mod body;
mod choose;
mod cold;
mod control;
pub mod demand;
pub mod file;
mod forward;
mod head;
mod health;
mod hold;
pub mod latency;
mod listener;
mod metrics;
mod model;
mod models;
mod pod;
mod probe;
mod refusal;
mod sent;
mod shared;
pub mod source;
pub mod table;
mod upstream;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use control::Control;
pub use listener::everywhere;
use models::{Keeper, Models};
use shared::{Shared, Threads};
use table::Table;

/// How an activator is run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where Models' ports are listened on.
    pub bind: Vec<IpAddr>,
    /// Where the control port is.
    pub control: SocketAddr,
    /// Threads that move bytes.
    pub threads: usize,
    /// How long requests that were sent may take to finish when it ends.
    pub drain: Duration,
}

/// An activator at work. Dropped, it ends at once.
pub struct Activator {
    control: SocketAddr,
    drain: Duration,
    shared: Arc<Shared>,
    known: watch::Receiver<bool>,
    tasks: JoinSet<()>,
    keeper: JoinSet<()>,
    /// Last, so that what uses them ends before.
    threads: Threads,
}

/// An activator that does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {address}, the control port: choose another")]
    Control { address: SocketAddr, source: io::Error },
    #[error("cannot start threads")]
    Threads(#[source] io::Error),
}

/// What its end came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections that had to be cut off.
    pub cut_off: usize,
}

// === impl Activator ===

impl Activator {
    /// Start with a table that is still to come.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(
        settings: Settings,
        table: watch::Receiver<Table>,
    ) -> Result<Self, StartError> {
        let address = settings.control;
        let failed = |source| StartError::Control { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let control = listener.local_addr().map_err(failed)?;
        let threads = Threads::start(settings.threads).map_err(StartError::Threads)?;
        let (shared, models) = (Arc::new(Shared::new(&threads)), Arc::new(Models::default()));
        let (knows, known) = watch::channel(false);
        let (mut tasks, mut keeper) = (JoinSet::new(), JoinSet::new());
        let kept = Keeper::new(Arc::clone(&shared), Arc::clone(&models), settings.bind);
        keeper.spawn(kept.run(table, knows));
        let answers = Control { shared: Arc::clone(&shared), models, known: known.clone() };
        tasks.spawn(answers.run(listener));
        Ok(Self { control, drain: settings.drain, shared, known, tasks, keeper, threads })
    }

    /// Where the control port is, with the number that was taken.
    pub fn control(&self) -> SocketAddr {
        self.control
    }

    /// Returns when the table was seen and its ports are listened on.
    pub async fn ready(&mut self) {
        // It ends with the activator, which is borrowed.
        drop(self.known.wait_for(|known| *known).await);
    }

    /// End: no more connections, 503 for those that wait, and time for those that were sent.
    pub async fn drain(mut self) -> Drained {
        self.shared.draining.cancel();
        // Ports are closed when it has ended.
        while self.keeper.join_next().await.is_some() {}
        let connections = &self.shared.connections;
        connections.close();
        let finished = tokio::time::timeout(self.drain, connections.wait()).await.is_ok();
        let cut_off = if finished { 0 } else { connections.len() };
        if cut_off > 0 {
            tracing::warn!(cut_off, "the drain time is over: connections are cut off");
        }
        self.tasks.shutdown().await;
        // Joined, not waited for: a thread may be in the middle of a poll, and no longer.
        drop(self.threads);
        Drained { cut_off }
    }
}
