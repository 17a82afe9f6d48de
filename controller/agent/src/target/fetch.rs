//! Bytes from a registry into the site's store: by digest, resumed where they were cut, and never more than
//! what the hub has said that they are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use wick_fleet::Model;
use wick_fleet::converge::{Event, Fault};
use wick_package::{Digest, Reason as _, Reference, error_text};
use wick_registry::{Progress, Registry, RegistryError, Store, StoreError};

use crate::target::{Events, images, tell};

/// What an image may have over what was said of it: signatures, and documents of other platforms.
const SLACK: u64 = 1 << 20;

/// Parts of images that were given up go at once.
const NO_GRACE: Duration = Duration::ZERO;

/// Fetches that go on.
pub struct Fetcher {
    registry: Registry,
    store: Store,
    events: Events,
    flights: Arc<Mutex<BTreeMap<Digest, CancellationToken>>>,
}

/// Ends a fetch that turns out to be larger than it may be.
struct Ceiling {
    most: u64,
    planned: AtomicU64,
    over: CancellationToken,
}

impl Progress for Ceiling {
    fn planned(&self, bytes: u64) {
        let planned = self.planned.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if planned > self.most {
            self.over.cancel();
        }
    }
}

// === impl Fetcher ===

impl Fetcher {
    pub fn new(registry: Registry, store: Store, events: Events) -> Self {
        Self { registry, store, events, flights: Arc::default() }
    }

    pub fn fetch(&self, model: Model) {
        let cancel = CancellationToken::new();
        {
            let mut flights = self.flights.lock();
            if flights.contains_key(&model.digest) {
                return;
            }
            flights.insert(model.digest, cancel.clone());
        }
        let (registry, store) = (self.registry.clone(), self.store.clone());
        let (events, flights) = (self.events.clone(), Arc::clone(&self.flights));
        tokio::spawn(async move {
            let digest = model.digest;
            let got = get(&registry, &store, &model, &cancel).await;
            let alone = {
                let mut flights = flights.lock();
                flights.remove(&digest);
                flights.is_empty()
            };
            if alone && got == Err(Fault::Cancelled) {
                // What was given up in the middle is counted nowhere: it goes.
                let swept = tokio::task::spawn_blocking(move || images::sweep(&store, NO_GRACE));
                drop(swept.await);
            }
            let event = match got {
                Ok(()) => Event::Fetched { digest },
                Err(fault) => Event::FetchFailed { digest, fault },
            };
            tell(&events, event);
        });
    }

    /// End a fetch, if there is one, and tell so in any case.
    pub fn cancel(&self, digest: Digest) {
        match self.flights.lock().get(&digest) {
            Some(cancel) => cancel.cancel(),
            None => tell(&self.events, Event::FetchFailed { digest, fault: Fault::Cancelled }),
        }
    }
}

async fn get(
    registry: &Registry,
    store: &Store,
    model: &Model,
    cancel: &CancellationToken,
) -> Result<(), Fault> {
    let reference: Result<Reference, _> = model.image.parse();
    let reference = reference.map_err(|_| Fault::Unreachable)?.with_digest(model.digest);
    let over = CancellationToken::new();
    let most = model.bytes.saturating_add(SLACK);
    let ceiling = Arc::new(Ceiling { most, planned: AtomicU64::new(0), over: over.clone() });
    tracing::info!(model = %model.name, image = %reference, "fetching");
    let pulled = tokio::select! {
        pulled = registry.pull(&reference, store, ceiling.clone()) => pulled,
        () = cancel.cancelled() => return Err(Fault::Cancelled),
        () = over.cancelled() => {
            let (planned, said) = (ceiling.planned.load(Ordering::Relaxed), model.bytes);
            tracing::warn!(image = %reference, planned, said, "has more bytes than the hub says");
            return Err(Fault::DiskFull);
        }
    };
    match pulled {
        Ok(pulled) if pulled.digest == model.digest => {
            tracing::info!(model = %model.name, moved = pulled.moved, kept = pulled.kept, "fetched");
            Ok(())
        }
        Ok(pulled) => {
            tracing::warn!(image = %reference, got = %pulled.digest, "the registry has sent another image");
            Err(Fault::WrongBytes)
        }
        Err(error) => {
            let (code, text) = (error.code(), error_text(&error));
            tracing::warn!(image = %reference, code, error = text, "not fetched");
            Err(fault(&error))
        }
    }
}

/// Whether it is the line, the bytes or the disk.
fn fault(error: &RegistryError) -> Fault {
    match error {
        RegistryError::Store(StoreError::Full { .. } | StoreError::IndexFull { .. }) => {
            Fault::DiskFull
        }
        RegistryError::Digest { .. }
        | RegistryError::Length { .. }
        | RegistryError::Platform { .. }
        | RegistryError::NotAnImage { .. }
        | RegistryError::NotAPackage { .. }
        | RegistryError::TooMany { .. }
        | RegistryError::Layout(_)
        | RegistryError::Open(_)
        | RegistryError::Store(StoreError::Digest { .. } | StoreError::Length { .. }) => {
            Fault::WrongBytes
        }
        _ => Fault::Unreachable,
    }
}
