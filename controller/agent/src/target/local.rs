//! The engine in this process, without Kubernetes: one port, and behind it the versions that have the
//! traffic. Those that are being staged are loaded beside them, asked by nobody.
//!
//! One version is loaded at a time, so that it is known which one ended the process if one does, and
//! so that what is served comes back before what is new is tried.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use wick_engine::{Engine, Grants};
use wick_fleet::converge::{Event, Kept, Version};
use wick_fleet::{Generation, Model};
use wick_package::{Digest, Reason as _, error_text};
use wick_registry::{Lease, Registry, Store};
use wick_serve::{
    BindError, Bound, CycleSettings, Opener, Repository, RepositoryError, RepositorySettings,
    ServeSettings, Server, Source, Staged, Traffic,
};

use super::fetch::Fetcher;
use super::suspects::Suspects;
use super::{Events, Found, Target, TargetError, images, tell};
use crate::keep::Home;

/// Parts of images that were on their way when the agent ended stay this long, to go on from.
const GRACE: Duration = Duration::from_secs(24 * 3600);

/// Longest time that requests have when the agent itself ends.
const DRAIN: Duration = Duration::from_secs(25);

const SUSPECTS: &str = "suspects.json";

/// How models are served here.
pub struct LocalSettings {
    pub serve: ServeSettings,
    pub engine: Engine,
    pub cpus: usize,
    /// Opens packages, under a policy where the site has one.
    pub opener: Opener,
    pub registry: wick_registry::Settings,
    /// Bytes a second that are fetched at most.
    pub bandwidth: Option<NonZeroU64>,
    pub give_back: Option<fn()>,
}

/// The target. Cloning shares it.
#[derive(Clone)]
pub struct Local {
    inner: Arc<Inner>,
}

struct Inner {
    repository: Repository,
    store: Store,
    fetcher: Fetcher,
    events: Events,
    suspects: Suspects,
    versions: Mutex<BTreeMap<Version, Run>>,
    loading: tokio::sync::Mutex<()>,
}

/// Where a version is.
enum Run {
    Starting,
    Ready {
        staged: Staged,
        _lease: Lease,
    },
    /// Its load goes on, or its last requests.
    Stopping,
}

/// A version that is not served.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Store(#[from] wick_registry::StoreError),
    #[error(transparent)]
    Load(#[from] RepositoryError),
    #[error("its package is called `{0}`: give the model this name")]
    Name(String),
    #[error(
        "it has ended this process several times while it was loaded: it is left alone for an hour"
    )]
    Suspect,
}

/// A target that can't begin.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Store(#[from] wick_registry::StoreError),
    #[error(transparent)]
    Registry(#[from] wick_registry::RegistryError),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

// === impl Local ===

impl Local {
    /// Take the port. Nothing is answered before [`Self::serve`].
    ///
    /// # Errors
    /// The port is taken, or the store can't be used.
    pub async fn bind(
        home: &Home,
        settings: LocalSettings,
        events: Events,
    ) -> Result<(Self, Bound), LocalError> {
        let store = Store::open(home.store())?;
        let rate = settings.bandwidth.or(settings.registry.rate);
        let registry = Registry::new(wick_registry::Settings { rate, ..settings.registry })?;
        let of_repository = RepositorySettings { cpus: settings.cpus, drain: DRAIN };
        let cycle = CycleSettings {
            opener: settings.opener,
            give_back: settings.give_back,
            ..CycleSettings::default()
        };
        let repository = Repository::with_cycle(settings.engine, of_repository, cycle)?;
        let bound = Server::bind(settings.serve).await?;
        let inner = Inner {
            repository,
            fetcher: Fetcher::new(registry, store.clone(), events.clone()),
            store,
            events,
            suspects: Suspects::new(home.root().join(SUSPECTS)),
            versions: Mutex::default(),
            loading: tokio::sync::Mutex::default(),
        };
        Ok((Self { inner: Arc::new(inner) }, bound))
    }

    /// Answer requests until `stop`, and finish those in work.
    pub async fn serve(&self, bound: Bound, stop: CancellationToken) {
        bound.serve(self.inner.repository.clone(), stop).await;
    }
}

impl Target for Local {
    async fn look(&self, kept: &Kept) -> Result<Found, TargetError> {
        let specs = [&kept.serving, &kept.wanted].into_iter().flatten();
        let known: Vec<_> = specs.flat_map(|spec| spec.models.clone()).collect();
        let store = self.inner.store.clone();
        let looked = tokio::task::spawn_blocking(move || {
            images::sweep(&store, GRACE);
            images::stored(&store, &known)
        });
        let failed = |why: String| TargetError { what: "the store of images", why };
        let stored = looked.await.map_err(|error| failed(error.to_string()))?;
        let stored = stored.map_err(|error| failed(error_text(&error)))?;
        // Whatever ran has ended with the process.
        Ok(Found { running: Vec::new(), stored })
    }

    fn fetch(&self, model: Model) {
        self.inner.fetcher.fetch(model);
    }

    fn cancel(&self, digest: Digest) {
        self.inner.fetcher.cancel(digest);
    }

    fn evict(&self, digest: Digest) {
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || {
            if images::remove(&inner.store, digest) {
                // The receiver is gone only when the agent ends.
                drop(inner.events.blocking_send(Event::Evicted { digest }));
            }
        });
    }

    fn start(&self, model: Model) {
        let version = Version::from(&model);
        {
            let mut versions = self.inner.versions.lock();
            if versions.contains_key(&version) {
                return;
            }
            versions.insert(version.clone(), Run::Starting);
        }
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move { inner.start(version).await });
    }

    fn stop(&self, version: Version) {
        let taken = {
            let mut versions = self.inner.versions.lock();
            match versions.remove(&version) {
                None => None,
                Some(run @ (Run::Starting | Run::Stopping)) => {
                    drop(run);
                    // Whoever waits for it tells when it is gone.
                    versions.insert(version, Run::Stopping);
                    return;
                }
                Some(ready) => {
                    versions.insert(version.clone(), Run::Stopping);
                    Some(ready)
                }
            }
        };
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move {
            if let Some(Run::Ready { staged, _lease }) = taken {
                staged.end().await;
            }
            inner.gone(version, |version| Event::Stopped { version });
        });
    }

    fn activate(&self, generation: Generation, versions: Vec<Version>) {
        let runs = self.inner.versions.lock();
        let staged = versions.iter().map(|version| match runs.get(version) {
            Some(Run::Ready { staged, .. }) => Some(staged),
            _ => None,
        });
        let Some(staged) = staged.collect::<Option<Vec<_>>>() else {
            tracing::warn!(%generation, "not all of it is ready: it gets no traffic");
            return;
        };
        self.inner.repository.show(staged);
        tracing::info!(%generation, "has the traffic");
        tell(&self.inner.events, Event::Activated { generation });
    }

    fn drain(&self, version: Version) {
        let quiet = match self.inner.versions.lock().get(&version) {
            Some(Run::Ready { staged, .. }) => Some(staged.quiet()),
            _ => None,
        };
        let events = self.inner.events.clone();
        tokio::spawn(async move {
            if let Some(quiet) = quiet {
                quiet.await;
            }
            tell(&events, Event::Drained { version });
        });
    }

    async fn traffic(&self) -> Option<Traffic> {
        Some(self.inner.repository.traffic())
    }

    fn metrics(&self) -> Vec<u8> {
        self.inner.repository.metrics_text().unwrap_or_default()
    }
}

// === impl Inner ===

impl Inner {
    async fn start(self: Arc<Self>, version: Version) {
        let loaded = {
            let _one_at_a_time = self.loading.lock().await;
            self.load(&version).await
        };
        match loaded {
            Ok((staged, lease)) => {
                let late = {
                    let mut versions = self.versions.lock();
                    match versions.get_mut(&version) {
                        Some(run @ Run::Starting) => {
                            *run = Run::Ready { staged, _lease: lease };
                            None
                        }
                        _ => Some(staged),
                    }
                };
                match late {
                    None => tell(&self.events, Event::Ready { version }),
                    Some(staged) => {
                        staged.end().await;
                        self.gone(version, |version| Event::Stopped { version });
                    }
                }
            }
            Err(error) => {
                let (model, digest) = (version.name.as_str(), version.digest.short());
                let code = match &error {
                    StartError::Load(error) => error.code(),
                    StartError::Store(error) => error.code(),
                    StartError::Name(_) => "model-renamed",
                    StartError::Suspect => "suspect",
                };
                tracing::warn!(model, %digest, code, error = error_text(&error), "not started");
                let stopping = matches!(self.versions.lock().get(&version), Some(Run::Stopping));
                self.gone(version, |version| match stopping {
                    true => Event::Stopped { version },
                    false => Event::Died { version },
                });
            }
        }
    }

    async fn load(&self, version: &Version) -> Result<(Staged, Lease), StartError> {
        let (store, digest) = (self.store.clone(), version.digest);
        let held = tokio::task::spawn_blocking(move || {
            let image = store.find(&digest.to_string())?.descriptor;
            let lease = store.hold(&image)?;
            Ok((store.blob_path(image.digest), lease))
        });
        let held: Result<_, wick_registry::StoreError> = match held.await {
            Ok(held) => held,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        let (path, lease) = held?;
        if !self.suspects.begin(digest) {
            return Err(StartError::Suspect);
        }
        let staged = self.repository.stage(Source { path, grants: Grants::default() }).await;
        self.suspects.end(digest);
        let staged = staged?;
        if staged.name() != version.name.as_str() {
            let name = staged.name().to_owned();
            staged.end().await;
            return Err(StartError::Name(name));
        }
        Ok((staged, lease))
    }

    fn gone(&self, version: Version, event: impl FnOnce(Version) -> Event) {
        self.versions.lock().remove(&version);
        tell(&self.events, event(version));
    }
}
