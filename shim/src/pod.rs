//! The containers of one pod, and the tools that they share.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{Mutex, watch};

use crate::cgroup::Layout;
use crate::clone::Cloner;
use crate::container::Container;
use crate::events::Events;
use crate::exit::Fault;
use crate::host::Host;
use crate::reaper::Reaper;
use crate::roster::Book;

/// What every container needs.
pub struct Tools {
    pub cloner: Cloner,
    pub reaper: Reaper,
    pub events: Events,
    pub layout: Arc<Layout>,
    pub host: Host,
    pub roster: Book,
    /// containerd's, not the kernel's.
    pub namespace: String,
}

/// A pod, or a container outside of one.
pub struct Pod {
    tools: Tools,
    containers: Mutex<HashMap<String, Entry>>,
    end: watch::Sender<bool>,
}

/// A name in the pod.
enum Entry {
    /// It is being created: no other may take the name.
    Reserved,
    Here(Arc<Container>),
}

// === impl Pod ===

impl Pod {
    pub fn new(tools: Tools) -> Arc<Self> {
        let (end, _) = watch::channel(false);
        Arc::new(Self { tools, containers: Mutex::default(), end })
    }

    pub fn tools(&self) -> &Tools {
        &self.tools
    }

    /// # Errors
    /// The name is taken.
    pub async fn reserve(&self, id: &str) -> Result<(), Fault> {
        let mut containers = self.containers.lock().await;
        if containers.contains_key(id) {
            return Err(Fault::Exists(format!("the task `{id}` exists")));
        }
        containers.insert(id.to_owned(), Entry::Reserved);
        Ok(())
    }

    pub async fn put(&self, container: Arc<Container>) {
        self.containers.lock().await.insert(container.id.clone(), Entry::Here(container));
    }

    /// Nothing of it is left. Also gives a reserved name back.
    pub async fn forget(&self, id: &str) {
        if let Err(error) = self.tools.roster.remove(id) {
            tracing::warn!(container = id, "it stays in the list of containers: {error}");
        }
        self.containers.lock().await.remove(id);
    }

    /// # Errors
    /// There is no such container.
    pub async fn get(&self, id: &str) -> Result<Arc<Container>, Fault> {
        match self.containers.lock().await.get(id) {
            Some(Entry::Here(container)) => Ok(Arc::clone(container)),
            Some(Entry::Reserved) | None => Err(Fault::no_task(id)),
        }
    }

    /// End the shim if nothing is left in it.
    pub async fn end_if_empty(&self) {
        if self.containers.lock().await.is_empty() {
            self.end.send_replace(true);
        }
    }

    /// Returns when the shim may end.
    pub async fn ended(&self) {
        let mut end = self.end.subscribe();
        // It fails when the sender is gone, which is this pod's.
        let _ = end.wait_for(|ended| *ended).await;
    }
}
