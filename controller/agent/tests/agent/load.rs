//! Requests without a pause.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::task::JoinSet;

use crate::rig::value;

/// Clients that ask without a pause. They count what failed.
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: JoinSet<()>,
    pub good: Arc<AtomicU64>,
    pub bad: Arc<Mutex<Vec<String>>>,
}

impl Load {
    pub fn start(http: SocketAddr) -> Self {
        let (stop, good): (Arc<AtomicBool>, Arc<AtomicU64>) = Default::default();
        let bad: Arc<Mutex<Vec<String>>> = Arc::default();
        let mut clients = JoinSet::new();
        for _ in 0..3 {
            let (stop, good, bad) = (Arc::clone(&stop), Arc::clone(&good), Arc::clone(&bad));
            clients.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    match value(http).await {
                        Ok(_) => drop(good.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => bad.lock().push(error),
                    }
                }
            });
        }
        Self { stop, clients, good, bad }
    }

    /// Answered and lost requests.
    pub async fn stop(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.join_all().await;
        (self.good.load(Ordering::Relaxed), self.bad.lock().clone())
    }
}
