//! Which Models need a turn. Whoever sees a change adds the Model; the controller's loop takes
//! it, and a Model that is there twice gets one turn.

use std::fmt;

use futures::Stream;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::mpsc;
use wick_api::Model;

/// Models that wait to be taken. The loop takes them at once and orders them itself.
const LEN: usize = 1024;

/// The name of a Model.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub namespace: String,
    pub name: String,
}

/// Where Models are added.
#[derive(Debug, Clone)]
pub struct Queue(mpsc::Sender<Key>);

/// The queue and what comes out of it.
pub fn queue() -> (Queue, impl Stream<Item = ObjectRef<Model>>) {
    let (sender, receiver) = mpsc::channel(LEN);
    let taken = futures::stream::unfold(receiver, |mut receiver| async {
        let key: Key = receiver.recv().await?;
        Some((ObjectRef::new(&key.name).within(&key.namespace), receiver))
    });
    (Queue(sender), taken)
}

// === impl Queue ===

impl Queue {
    /// Waits while the queue is full. After the end of the loop it does nothing.
    pub async fn add(&self, key: Key) {
        let _ = self.0.send(key).await;
    }
}

// === impl Key ===

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
