//! The models of a process, each with its state, replaced atomically.
//!
//! ```text
//!   add ──▶ Loading ──▶ Ready ──▶ Draining ──▶ Unloaded
//!              │          │ ▲         (unload, or the server's end)
//!              ▼          ▼ │ load: the new one is loaded, warmed and probed beside
//!            Failed ◀──── load  the old; only then requests are switched over
//! ```
//!
//! A request takes the model that is live when it arrives and keeps it to its end,
//! so a switch never breaks a request: the old model is dropped by the last request
//! that uses it. A load that fails while another is live changes nothing but
//! [`ModelStatus::last_error`].
//!
//! The last of the warm-up requests is the probe: a model becomes ready only after
//! one has succeeded, unless its package turns warming off.

mod error;
mod load;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use prometheus::Registry;
use serde::Serialize;
use wick_engine::{Engine, Grants, Model, ModelKind};
use wick_package::{Package, Reason as _};

use crate::codec::clip;
use crate::forward::{self, Route};
use crate::gate::Gate;
use crate::metrics::{Metrics, ModelMetrics};
use crate::respond::Failure;

pub use error::RepositoryError;

/// Models of an error message that says what there is.
const MAX_NAMES_SHOWN: usize = 8;

/// Smallest default concurrency: while one request waits for its device or its
/// guest's host, another can work.
const MIN_CONCURRENCY: usize = 2;

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

/// What a model is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is loaded or warmed for the first time.
    Loading,
    Ready,
    /// It could not be loaded, and nothing else is live.
    Failed,
    /// It finishes its requests and takes no new ones.
    Draining,
    Unloaded,
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
    metrics: Metrics,
    /// By name; replaced when a model is added.
    entries: ArcSwap<BTreeMap<String, Arc<Entry>>>,
    /// Held while `entries` is replaced.
    adding: Mutex<()>,
    /// Asked to end: not ready any more, but still answering.
    leaving: AtomicBool,
    draining: AtomicBool,
}

struct Entry {
    name: String,
    source: Source,
    live: ArcSwapOption<Live>,
    report: Mutex<Report>,
    /// Held while the model is loaded or unloaded, so that one happens at a time.
    loading: tokio::sync::Mutex<()>,
    /// Opened when the model was added; the first load takes it.
    opened: Mutex<Option<Package>>,
    /// Loaded and found to be a command, which is not served.
    command: Mutex<Option<Model>>,
}

struct Report {
    state: State,
    /// Known once it was loaded.
    kind: Option<ModelKind>,
    last_error: Option<(&'static str, String)>,
}

/// A loaded model with its door and its counters.
pub struct Live {
    pub model: Model,
    pub name: String,
    pub version: String,
    pub gate: Arc<Gate>,
    pub metrics: ModelMetrics,
}

// === impl Repository ===

impl Repository {
    /// An empty repository with its own metrics.
    ///
    /// # Errors
    /// Never with a registry of its own; see `Metrics::register`.
    pub fn new(engine: Engine, settings: RepositorySettings) -> Result<Self, RepositoryError> {
        let metrics = Metrics::register(Registry::new()).map_err(RepositoryError::Metrics)?;
        let inner = Inner {
            engine,
            settings,
            metrics,
            entries: ArcSwap::default(),
            adding: Mutex::new(()),
            leaving: AtomicBool::new(false),
            draining: AtomicBool::new(false),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Open a package and list its model as loading. [`Repository::load`] it next.
    ///
    /// # Errors
    /// The package cannot be opened, or its name is taken.
    pub async fn add(&self, source: Source) -> Result<String, RepositoryError> {
        let package = load::open(source.path.clone()).await?;
        self.add_package(package, source)
    }

    /// Like [`Repository::add`], for a package that is open already. A reload opens the
    /// source's path.
    ///
    /// # Errors
    /// Its name is taken.
    pub fn add_package(&self, package: Package, source: Source) -> Result<String, RepositoryError> {
        let name = package.manifest().name.to_string();
        let entry = Arc::new(Entry {
            name: name.clone(),
            source,
            live: ArcSwapOption::empty(),
            report: Mutex::new(Report { state: State::Loading, kind: None, last_error: None }),
            loading: tokio::sync::Mutex::new(()),
            opened: Mutex::new(Some(package)),
            command: Mutex::new(None),
        });
        let _adding = self.inner.adding.lock();
        let mut entries = BTreeMap::clone(&self.inner.entries.load());
        if let Some(other) = entries.get(&name) {
            let (first, second) = (other.source.path.clone(), entry.source.path.clone());
            return Err(RepositoryError::Duplicate { model: name, first, second });
        }
        entries.insert(name.clone(), entry);
        self.inner.entries.store(Arc::new(entries));
        Ok(name)
    }

    /// Load, warm and probe a model, then switch requests over to it. Used for the
    /// first load and for every reload.
    ///
    /// # Errors
    /// The model that was live, if any, goes on serving.
    pub async fn load(&self, name: &str) -> Result<(), RepositoryError> {
        let entry = self.entry(name)?;
        let _one_at_a_time = entry.loading.lock().await;
        let loaded = load::load(&self.inner, &entry).await;
        let mut report = entry.report.lock();
        match loaded {
            Ok(live) => {
                let kind = Some(live.model.kind());
                let old = entry.live.swap(Some(Arc::new(live)));
                *report = Report { state: State::Ready, kind, last_error: None };
                drop(report);
                self.retire(&entry, old);
                Ok(())
            }
            Err(error) => {
                report.last_error = Some((error.code(), load::chain(&error)));
                if entry.live.load().is_none() {
                    report.state = State::Failed;
                }
                Err(error)
            }
        }
    }

    /// Load a changed package beside the live one and switch over. See
    /// [`Repository::load`].
    ///
    /// # Errors
    /// The old model goes on serving, and a warning says why.
    pub async fn reload(&self, name: &str) -> Result<(), RepositoryError> {
        let result = self.load(name).await;
        match &result {
            Ok(()) => tracing::info!(model = name, "reloaded"),
            Err(error) => tracing::warn!(
                model = name,
                code = error.code(),
                error = load::chain(error),
                "reload failed; the version that was live goes on serving"
            ),
        }
        result
    }

    /// Load every model that was added and is not loaded yet, all at once.
    /// Failures are returned with the model's name.
    pub async fn load_all(&self) -> Vec<(String, RepositoryError)> {
        let loading = self.statuses().into_iter().filter(|model| model.state == State::Loading);
        let loads = loading.map(|model| async move {
            let result = self.load(&model.name).await;
            result.err().map(|error| (model.name, error))
        });
        futures::future::join_all(loads).await.into_iter().flatten().collect()
    }

    /// The loaded model of a package whose load failed with [`RepositoryError::Command`],
    /// so that it need not be loaded again to be run. Once.
    pub fn take_command(&self, name: &str) -> Option<Model> {
        self.entry(name).ok()?.command.lock().take()
    }

    /// Take no new requests for a model, finish those it has, and drop it.
    ///
    /// # Errors
    /// There is no such model.
    pub async fn unload(&self, name: &str) -> Result<(), RepositoryError> {
        let entry = self.entry(name)?;
        let _one_at_a_time = entry.loading.lock().await;
        let Some(old) = entry.live.swap(None) else { return Ok(()) };
        entry.report.lock().state = State::Draining;
        old.gate.close();
        if tokio::time::timeout(self.inner.settings.drain, old.gate.idle()).await.is_err() {
            tracing::warn!(model = name, "unloaded while requests go on; they end in their time");
        }
        entry.report.lock().state = State::Unloaded;
        Ok(())
    }

    /// Say to readiness probes that the server is about to end, and go on answering.
    pub fn leave(&self) {
        self.inner.leaving.store(true, Ordering::Release);
    }

    pub fn is_leaving(&self) -> bool {
        self.inner.leaving.load(Ordering::Acquire)
    }

    /// Turn new requests away, and say so to readiness probes.
    pub fn drain(&self) {
        self.inner.draining.store(true, Ordering::Release);
    }

    /// Whether every model is loaded, warmed and probed.
    pub fn is_ready(&self) -> bool {
        !self.is_leaving()
            && !self.is_draining()
            && self.inner.entries.load().values().all(|entry| entry.live.load().is_some())
    }

    pub fn is_draining(&self) -> bool {
        self.inner.draining.load(Ordering::Acquire)
    }

    /// The names of all models, in order.
    pub fn names(&self) -> Vec<String> {
        self.inner.entries.load().keys().cloned().collect()
    }

    /// Where a model's package is.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.inner.entries.load().get(name).map(|entry| entry.source.path.clone())
    }

    /// All models for reports, in the order of their names.
    pub fn statuses(&self) -> Vec<ModelStatus> {
        self.inner.entries.load().values().map(|entry| entry.status()).collect()
    }

    /// Bring a model's counters up to date with its graphs.
    pub(crate) fn take_graphs(&self, live: &Live) {
        self.inner.metrics.take_graphs(&live.name, &live.model, &live.metrics);
    }

    /// All metrics in Prometheus' text format.
    ///
    /// # Errors
    /// A metric can't be written, which those of this crate always can.
    pub fn metrics_text(&self) -> prometheus::Result<Vec<u8>> {
        for entry in self.inner.entries.load().values() {
            if let Some(live) = entry.live.load().as_ref() {
                self.take_graphs(live);
            }
        }
        self.inner.metrics.text()
    }

    /// The live model for a request that is about to be answered by it.
    ///
    /// # Errors
    /// It is unknown, has another version, is not ready, or the server drains.
    #[expect(clippy::unused_async, reason = "a model that is not in memory will be loaded here")]
    pub async fn acquire(&self, name: &str, version: Option<&str>) -> Result<Arc<Live>, Failure> {
        self.get(name, version)
    }

    /// The live model that a request would get.
    ///
    /// # Errors
    /// It is unknown, has another version, is not ready, or the server drains.
    pub fn get(&self, name: &str, version: Option<&str>) -> Result<Arc<Live>, Failure> {
        let live = self.peek(name, version)?;
        if self.is_draining() {
            return Err(Failure::Draining);
        }
        Ok(live)
    }

    /// As [`Repository::get`], for a look that draining does not forbid.
    ///
    /// # Errors
    /// It is unknown, has another version, or is not ready.
    pub fn peek(&self, name: &str, version: Option<&str>) -> Result<Arc<Live>, Failure> {
        let entries = self.inner.entries.load();
        let entry = entries.get(name).ok_or_else(|| unknown(name, &entries))?;
        let Some(live) = entry.live.load_full() else {
            let state = entry.report.lock().state;
            return Err(Failure::NotReady { model: entry.name.clone(), state });
        };
        match version {
            Some(version) if version != live.version => Err(Failure::UnknownVersion {
                model: entry.name.clone(),
                version: clip(version),
                have: live.version.clone(),
            }),
            _ => Ok(live),
        }
    }

    /// The live model that answers HTTP at a path that is not the server's own, and
    /// how much of the path is its name. A model whose kind is not known yet may be
    /// one that answers HTTP, so that paths mean the same from start to end.
    ///
    /// # Errors
    /// There is none, it is not ready, or the server drains.
    pub(crate) fn http_target(&self, path: &str) -> Result<(Arc<Live>, usize), Failure> {
        let entries = self.inner.entries.load();
        let mut http = entries
            .values()
            .filter(|entry| matches!(entry.report.lock().kind, None | Some(ModelKind::Http)));
        let first = http.next();
        match (first, forward::route(path, http.next().is_none())) {
            (None, _) => Err(Failure::unknown_path(path)),
            (Some(only), Route::Only) => Ok((self.get(&only.name, None)?, 0)),
            (Some(_), Route::Named { model, path: below }) => {
                let known = entries.get(model).map(|entry| entry.report.lock().kind);
                match known {
                    None | Some(Some(ModelKind::Passthrough | ModelKind::Handler)) => {
                        Err(Failure::unknown_path(path))
                    }
                    Some(_) => Ok((self.get(model, None)?, path.len() - below.len())),
                }
            }
        }
    }

    fn entry(&self, name: &str) -> Result<Arc<Entry>, RepositoryError> {
        let entry = self.inner.entries.load().get(name).cloned();
        entry.ok_or_else(|| RepositoryError::Unknown(name.to_owned()))
    }

    /// Report where the new model runs, and how the old one's requests end.
    fn retire(&self, entry: &Arc<Entry>, old: Option<Arc<Live>>) {
        let devices = |live: &Option<Arc<Live>>| {
            live.as_ref().map_or_else(Vec::new, |live| live.model.graphs())
        };
        let metrics = &self.inner.metrics;
        metrics.set_devices(&entry.name, &devices(&old), &devices(&entry.live.load_full()));
        let Some(old) = old else { return };
        let (name, drain) = (entry.name.clone(), self.inner.settings.drain);
        let metrics = metrics.clone();
        tokio::spawn(async move {
            let ended = tokio::time::timeout(drain, old.gate.idle()).await.is_ok();
            metrics.take_graphs(&name, &old.model, &old.metrics);
            if !ended {
                let (running, waiting) = old.gate.load();
                tracing::warn!(
                    model = name,
                    version = old.version,
                    running,
                    waiting,
                    "requests of the replaced version go on"
                );
            }
        });
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

// === impl Entry, State ===

impl Entry {
    fn status(&self) -> ModelStatus {
        let live = self.live.load();
        let (running, waiting) = live.as_ref().map_or((0, 0), |live| live.gate.load());
        let report = self.report.lock();
        ModelStatus {
            name: self.name.clone(),
            version: live.as_ref().map(|live| live.version.clone()),
            state: report.state,
            path: self.source.path.clone(),
            last_error: report.last_error.clone(),
            running,
            waiting,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loading => "still loading",
            Self::Ready => "ready",
            Self::Failed => "not loaded: its package is broken, see the server's log",
            Self::Draining => "finishing its last requests",
            Self::Unloaded => "unloaded",
        })
    }
}

fn unknown(name: &str, entries: &BTreeMap<String, Arc<Entry>>) -> Failure {
    let shown: Vec<_> = entries.keys().take(MAX_NAMES_SHOWN).map(String::as_str).collect();
    let known = match (shown.len(), entries.len().saturating_sub(MAX_NAMES_SHOWN)) {
        (0, _) => "none".to_owned(),
        (_, 0) => shown.join(", "),
        (_, more) => format!("{} and {more} more", shown.join(", ")),
    };
    Failure::UnknownModel { model: clip(name), known }
}
