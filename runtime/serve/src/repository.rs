//! The models of a process: versions of each, every one with its state, replaced atomically.
//!
//! ```text
//!   add ──▶ Entry (a model) ──▶ Slot (a package, a version) ──▶ Live (answers requests)
//!   load: packages are opened, the policy chooses, the chosen are loaded, warmed and
//!         probed beside what is live; only then requests are switched over
//! ```
//!
//! A request takes what is live when it arrives and keeps it to its end, so a switch never
//! breaks a request: the old one is dropped by the last request that uses it. A load
//! that fails while another is live changes nothing but [`ModelStatus::last_error`].
//!
//! The last of the warm-up requests is the probe: a version becomes ready only after
//! one has succeeded, unless its package turns warming off. What is ready may leave memory
//! and come back: see [`rest`].

mod error;
mod find;
mod idle;
mod live;
mod load;
mod lost;
mod opener;
mod reserve;
mod rest;
mod room;
mod staged;
mod state;
mod versions;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use prometheus::Registry;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use wick_engine::{Engine, Grants, GraphStatus, Model, ModelKind};
use wick_package::{Package, Reason as _, error_text};

use crate::cores::Cores;
use crate::metrics::Metrics;
use crate::traffic::Traffic;
use reserve::Rooms;
use state::{Attempt, Event};

pub use error::RepositoryError;
pub use live::Live;
pub(crate) use live::Woken;
pub use opener::Opener;
pub use staged::Staged;
pub use state::State;
pub use versions::{PolicyError, VersionPolicy};

/// Models of an error message that says what there is.
const MAX_NAMES_SHOWN: usize = 8;

/// Smallest default concurrency: while one request waits for its device or its
/// guest's host, another can work.
const MIN_CONCURRENCY: usize = 2;

/// Requests of all models that are in work at once for each CPU, before the models have to
/// share: while one waits for its device, another computes.
const REQUESTS_PER_CPU: usize = 2;

/// Models of this process. Cloning shares them.
#[derive(Clone)]
pub struct Repository {
    inner: Arc<Inner>,
}

/// What the host decides about models.
#[derive(Debug, Clone)]
pub struct RepositorySettings {
    /// CPUs that this process may use: twice as many requests of a model run at
    /// once, unless its package says otherwise.
    pub cpus: usize,
    /// Longest time that the requests of a replaced or unloaded model are waited
    /// for. They are never cut off; after it, a warning says that they go on.
    pub drain: Duration,
}

/// Where a package is and what it may use.
#[derive(Debug, Clone)]
pub struct Source {
    /// A directory, an OCI layout, or its tar.
    pub path: PathBuf,
    pub grants: Grants,
}

/// What the host decides about opening, versions and memory. The default is that every package
/// is opened, and that the newest version of each model is loaded, and stays.
#[derive(Debug, Clone, Default)]
pub struct CycleSettings {
    pub opener: Opener,
    pub versions: VersionPolicy,
    /// Time without a request after which a model leaves memory, whatever its package says;
    /// zero is never.
    pub idle_graph: Option<Duration>,
    /// Bytes that all loaded models together may have.
    pub max_loaded_memory: Option<u64>,
    /// Bytes that all models together may have on one device beside the processor.
    pub max_device_memory: Option<u64>,
    /// How this process gives memory that it has freed back to the system.
    pub give_back: Option<fn()>,
}

/// A model for reports.
#[derive(Debug, Clone, Serialize)]
pub struct ModelStatus {
    pub name: String,
    /// The live version.
    pub version: Option<String>,
    pub state: State,
    pub path: PathBuf,
    /// Code and text of the last load, if it failed.
    pub last_error: Option<(&'static str, String)>,
    /// Requests in work and in the queue.
    pub running: usize,
    pub waiting: usize,
}

struct Inner {
    engine: Engine,
    settings: RepositorySettings,
    cycle: CycleSettings,
    metrics: Metrics,
    /// By name; replaced when a model is added.
    entries: ArcSwap<BTreeMap<String, Arc<Entry>>>,
    /// Held while `entries`, or the packages of one, are replaced.
    adding: Mutex<()>,
    cores: Arc<Cores>,
    rooms: Rooms,
    /// When it was made.
    origin: Instant,
    /// Asked to end: not ready any more, but still answering.
    leaving: AtomicBool,
    draining: AtomicBool,
    /// For those who wait for `draining`, which requests only read.
    drained: CancellationToken,
}

/// A model.
struct Entry {
    name: String,
    /// Its packages, in the order in which they were added.
    slots: ArcSwap<Vec<Arc<Slot>>>,
    /// What answers requests, newest first.
    answers: ArcSwap<Vec<Arc<Live>>>,
    /// Versions that the policy wanted last.
    chosen: AtomicUsize,
    /// Known once it was loaded.
    kind: Mutex<Option<ModelKind>>,
    /// Held while versions are loaded or unloaded, so that one happens at a time.
    loading: Arc<tokio::sync::Mutex<()>>,
}

/// A package of a model: one version.
struct Slot {
    source: Source,
    live: ArcSwapOption<Live>,
    report: Mutex<Report>,
    /// Opened when the model was added; the first load takes it.
    opened: Mutex<Option<Package>>,
    /// Loaded and found to be a command, which is not served.
    command: Mutex<Option<Model>>,
}

struct Report {
    attempt: Attempt,
    /// Of the package when it was opened last.
    version: semver::Version,
    last_error: Option<(&'static str, String)>,
}

// === impl Repository ===

impl Repository {
    /// An empty repository with its own metrics.
    ///
    /// # Errors
    /// Never with a registry of its own; see `Metrics::register`.
    pub fn new(engine: Engine, settings: RepositorySettings) -> Result<Self, RepositoryError> {
        Self::with_cycle(engine, settings, CycleSettings::default())
    }

    /// An empty repository whose models come and go as `cycle` says. Whoever serves it
    /// calls [`Repository::tend`].
    ///
    /// # Errors
    /// As [`Repository::new`].
    pub fn with_cycle(
        engine: Engine,
        settings: RepositorySettings,
        cycle: CycleSettings,
    ) -> Result<Self, RepositoryError> {
        let metrics = Metrics::register(Registry::new()).map_err(RepositoryError::Metrics)?;
        let cores = Cores::new(settings.cpus.saturating_mul(REQUESTS_PER_CPU));
        let inner = Inner {
            engine,
            cores,
            settings,
            cycle,
            metrics,
            entries: ArcSwap::default(),
            adding: Mutex::new(()),
            rooms: Rooms::default(),
            origin: Instant::now(),
            leaving: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            drained: CancellationToken::new(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Open a package and list its version as loading. [`Repository::load`] it next.
    ///
    /// # Errors
    /// The package cannot be opened, or its version of the model is there already.
    pub async fn add(&self, source: Source) -> Result<String, RepositoryError> {
        let package = load::open(&self.inner, source.path.clone()).await?;
        self.add_package(package, source)
    }

    /// Like [`Repository::add`], for a package that is open already. A reload opens the
    /// source's path.
    ///
    /// # Errors
    /// Its version of the model is there already.
    pub fn add_package(&self, package: Package, source: Source) -> Result<String, RepositoryError> {
        let name = package.manifest().name.to_string();
        let _adding = self.inner.adding.lock();
        let known = self.inner.entries.load().get(&name).cloned();
        let entry = known.unwrap_or_else(|| Arc::new(Entry::new(name.clone())));
        let version = package.manifest().version.clone();
        let slot = Arc::new(Slot::new(package, source));
        entry.check_free(&version, &slot)?;
        let mut slots = Vec::clone(&entry.slots.load());
        slots.push(slot);
        entry.slots.store(Arc::new(slots));
        let mut entries = BTreeMap::clone(&self.inner.entries.load());
        entries.insert(name.clone(), entry);
        self.inner.entries.store(Arc::new(entries));
        Ok(name)
    }

    /// Load, warm and probe the versions of a model that the policy wants, then switch
    /// requests over to them. Used for the first load and for every reload.
    ///
    /// # Errors
    /// What was live, if anything, goes on serving.
    pub async fn load(&self, name: &str) -> Result<(), RepositoryError> {
        let entry = self.entry(name)?;
        load::versions(&self.inner, &entry, None).await
    }

    /// Load a model's changed packages beside what is live and switch over. See
    /// [`Repository::load`].
    ///
    /// # Errors
    /// What was live goes on serving, and a warning says why.
    pub async fn reload(&self, name: &str) -> Result<(), RepositoryError> {
        self.reload_only(name, None).await
    }

    /// As [`Repository::reload`], for the one package at `path`.
    pub(crate) async fn reload_package(
        &self,
        name: &str,
        path: &Path,
    ) -> Result<(), RepositoryError> {
        self.reload_only(name, Some(path)).await
    }

    async fn reload_only(&self, name: &str, only: Option<&Path>) -> Result<(), RepositoryError> {
        let entry = self.entry(name)?;
        let result = load::versions(&self.inner, &entry, only).await;
        match &result {
            Ok(()) => tracing::info!(model = name, "reloaded"),
            Err(error) => tracing::warn!(
                model = name,
                code = error.code(),
                error = error_text(error),
                "reload failed; the version that was live goes on serving"
            ),
        }
        result
    }

    /// Load every model that was added and is not loaded yet, all at once.
    /// Failures are returned with the model's name.
    pub async fn load_all(&self) -> Vec<(String, RepositoryError)> {
        let entries = self.inner.entries.load_full();
        let waits = |slot: &Arc<Slot>| slot.opened.lock().is_some();
        let new = entries.values().filter(|entry| entry.slots.load().iter().any(waits));
        let loads = new.map(|entry| async move {
            let result = self.load(&entry.name).await;
            result.err().map(|error| (entry.name.clone(), error))
        });
        futures::future::join_all(loads).await.into_iter().flatten().collect()
    }

    /// The loaded model of a package whose load failed with [`RepositoryError::Command`],
    /// so that it need not be loaded again to be run. Once.
    pub fn take_command(&self, name: &str) -> Option<Model> {
        let entry = self.entry(name).ok()?;
        entry.slots.load().iter().find_map(|slot| slot.command.lock().take())
    }

    /// Take no new requests for a model, finish those that its versions have, and drop them.
    ///
    /// # Errors
    /// There is no such model.
    pub async fn unload(&self, name: &str) -> Result<(), RepositoryError> {
        let entry = self.entry(name)?;
        let _one_at_a_time = entry.loading.lock().await;
        let slots = entry.slots.load_full();
        let drains: Vec<_> = slots.iter().filter_map(|slot| slot.take(&entry)).collect();
        entry.answer();
        load::drain(&self.inner, &entry, drains).await;
        Ok(())
    }

    /// How requests went since the repository was made.
    pub fn traffic(&self) -> Traffic {
        self.inner.metrics.traffic()
    }

    /// Where another part of the server registers its own metrics.
    pub(crate) fn registry(&self) -> &Registry {
        self.inner.metrics.registry()
    }

    fn entry(&self, name: &str) -> Result<Arc<Entry>, RepositoryError> {
        let entry = self.inner.entries.load().get(name).cloned();
        entry.ok_or_else(|| RepositoryError::Unknown(name.to_owned()))
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

// === impl Inner ===

impl Inner {
    /// Milliseconds since the repository was made.
    fn millis(&self, now: Instant) -> u64 {
        live::millis(self.origin, now)
    }

    /// Report where a model's graphs run, and no longer where `gone` ones ran.
    fn set_devices(&self, entry: &Entry, gone: &[GraphStatus]) {
        let answers = entry.answers.load();
        let now: Vec<_> = answers.iter().flat_map(|live| live.model.graphs()).collect();
        self.metrics.set_devices(&entry.name, gone, &now);
    }
}

// === impl Entry ===

impl Entry {
    fn new(name: String) -> Self {
        Self {
            name,
            slots: ArcSwap::default(),
            answers: ArcSwap::default(),
            chosen: AtomicUsize::new(0),
            kind: Mutex::default(),
            loading: Arc::default(),
        }
    }

    /// Whether no other package is this version.
    fn check_free(&self, version: &semver::Version, slot: &Slot) -> Result<(), RepositoryError> {
        let slots = self.slots.load();
        let others = slots.iter().filter(|other| !std::ptr::eq(&***other, slot));
        let taken = others.into_iter().find(|other| other.report.lock().version == *version);
        taken.map_or(Ok(()), |other| {
            Err(RepositoryError::Duplicate {
                model: self.name.clone(),
                version: version.to_string(),
                first: other.source.path.clone(),
                second: slot.source.path.clone(),
            })
        })
    }

    /// Let requests go to what is live now.
    fn answer(&self) {
        let slots = self.slots.load();
        let mut answers: Vec<_> = slots.iter().filter_map(|slot| slot.live.load_full()).collect();
        let number = |live: &Arc<Live>| live.model.manifest().version.clone();
        answers.sort_by_key(|live| std::cmp::Reverse(number(live)));
        self.answers.store(Arc::new(answers));
    }
}

// === impl Slot ===

impl Slot {
    fn new(package: Package, source: Source) -> Self {
        let version = package.manifest().version.clone();
        let report = Report { attempt: Attempt::Loading, version, last_error: None };
        Self {
            source,
            live: ArcSwapOption::empty(),
            report: Mutex::new(report),
            opened: Mutex::new(Some(package)),
            command: Mutex::new(None),
        }
    }

    /// The version that it is, or would be.
    fn number(&self, package: &Option<Package>) -> semver::Version {
        match (package, &*self.live.load()) {
            (Some(package), _) => package.manifest().version.clone(),
            (None, Some(live)) => live.model.manifest().version.clone(),
            (None, None) => self.report.lock().version.clone(),
        }
    }

    /// Note what has happened. Whatever can't happen is a mistake of this crate.
    fn on(&self, event: Event) {
        let mut report = self.report.lock();
        match report.attempt.on(event) {
            Some(next) => report.attempt = next,
            None => {
                let (attempt, package) = (report.attempt, self.source.path.display());
                tracing::error!(%package, ?attempt, ?event, "a version's state is not known");
                debug_assert!(false, "{event:?} while {attempt:?}");
            }
        }
    }

    fn failed(&self, error: &RepositoryError) {
        self.on(Event::Failed);
        self.report.lock().last_error = Some((error.code(), error_text(error)));
    }

    /// The policy does not want it.
    fn skipped(&self) {
        if !matches!(self.report.lock().attempt, Attempt::Draining | Attempt::Failed) {
            self.on(Event::Skipped);
        }
    }

    /// Take what answers out of service. Its requests go on.
    fn take(self: &Arc<Self>, entry: &Entry) -> Option<(Arc<Self>, Arc<Live>)> {
        let live = self.live.swap(None)?;
        entry.answer();
        self.on(Event::Unload);
        Some((Arc::clone(self), live))
    }
}
