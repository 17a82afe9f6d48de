//! What a site's versions run on. A target does what it is told and tells by events what came of it;
//! what is to be done when is decided elsewhere.

mod fetch;
mod images;
mod kubernetes;
mod local;
mod suspects;

use std::future::Future;

use tokio::sync::mpsc;
use wick_fleet::converge::{Event, Kept, Version};
use wick_fleet::{Generation, Model};
use wick_package::Digest;
use wick_serve::Traffic;

pub use kubernetes::{Kubernetes, KubernetesSettings};
pub use local::{Local, LocalError, LocalSettings};

/// Where a target tells what happened. Its length is that of many sites' events at once; whoever
/// tells more waits.
pub type Events = mpsc::Sender<Event>;

/// What is there when an agent starts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    pub running: Vec<Model>,
    pub stored: Vec<(Digest, u64)>,
}

/// A target that can't be used, now.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}")]
pub struct TargetError {
    pub what: &'static str,
    pub why: String,
}

/// All but `look` return at once and tell later, by an event; each may be asked twice.
pub trait Target: Send + Sync + 'static {
    /// What runs and what is stored, of what was kept and otherwise.
    fn look(&self, kept: &Kept) -> impl Future<Output = Result<Found, TargetError>> + Send;
    fn fetch(&self, model: Model);
    fn cancel(&self, digest: Digest);
    fn evict(&self, digest: Digest);
    fn start(&self, model: Model);
    fn stop(&self, version: Version);
    fn activate(&self, generation: Generation, versions: Vec<Version>);
    fn drain(&self, version: Version);
    /// How requests went since the agent has started, where the target knows.
    fn traffic(&self) -> impl Future<Output = Option<Traffic>> + Send;
    /// Metrics of its own, in Prometheus' text format.
    fn metrics(&self) -> Vec<u8>;
}

/// Tell an event from where nobody can wait.
fn tell(events: &Events, event: Event) {
    let events = events.clone();
    // The receiver is gone only when the agent ends.
    tokio::spawn(async move { drop(events.send(event).await) });
}
