//! Reload packages that change on disk.
//!
//! Files of a package change one after another while it is copied, so a package is
//! loaded only after it has been quiet for a moment. A load of a half-written package
//! fails and changes nothing; the writes that complete it start the next one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, MetadataKind, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::repository::Repository;

/// How long a package must be quiet: longer than the gaps between the files of a
/// copy, shorter than a person's patience.
pub const SETTLE: Duration = Duration::from_millis(300);

/// How long a package that never gets quiet is waited for.
pub const MAX_SETTLE: Duration = Duration::from_secs(10);

/// Watches the packages of a repository.
pub struct Watch {
    watcher: RecommendedWatcher,
    repository: Repository,
    dirty: Arc<Dirty>,
    packages: Packages,
}

/// What is watched, by its absolute path.
type Packages = BTreeMap<PathBuf, Watched>;

/// A package of a model.
#[derive(Debug, Clone)]
struct Watched {
    model: String,
    /// As it was given to the repository.
    path: PathBuf,
}

/// Packages could not be watched.
#[derive(Debug, thiserror::Error)]
#[error("cannot watch {path} for changes")]
pub struct WatchError {
    path: PathBuf,
    source: notify::Error,
}

/// Packages with changes that are not loaded yet, by their absolute paths: at most one
/// entry a package.
#[derive(Default)]
struct Dirty {
    packages: Mutex<BTreeMap<PathBuf, Change>>,
    changed: Notify,
}

/// When a package changed for the first and for the last time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Change {
    first: Instant,
    last: Instant,
}

// === impl Watch ===

impl Watch {
    /// Watch the packages of all models that the repository has now.
    ///
    /// # Errors
    /// The system's watches are used up, or a package is gone.
    pub fn new(repository: Repository) -> Result<Self, WatchError> {
        let mut packages = Packages::new();
        for model in repository.names() {
            for path in repository.paths(&model) {
                // Events name absolute paths.
                let absolute = std::path::absolute(&path).unwrap_or_else(|_| path.clone());
                packages.insert(absolute, Watched { model: model.clone(), path });
            }
        }
        let dirty = Arc::new(Dirty::default());
        let (sink, paths) = (Arc::clone(&dirty), packages.clone());
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            sink.note(event, &paths, Instant::now());
        });
        let failed = |path: &Path, source| WatchError { path: path.to_owned(), source };
        let mut watcher = watcher.map_err(|source| failed(Path::new("files"), source))?;
        for path in packages.keys() {
            watch(&mut watcher, path).map_err(|source| failed(path, source))?;
        }
        Ok(Self { watcher, repository, dirty, packages })
    }

    /// Reload what changes, until `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let changed = self.dirty.changed.notified();
            let ready = self.dirty.settled(Instant::now());
            for path in &ready {
                let Some(package) = self.packages.get(path) else { continue };
                let name = &package.model;
                // A package that was replaced as a whole has a new inode to watch.
                if let Err(error) = watch(&mut self.watcher, path) {
                    tracing::warn!(model = name, %error, "the package is not watched any more");
                }
                // The repository logs how it went; either way the next change counts.
                let _ = self.repository.reload_package(name, &package.path).await;
            }
            let next = self.dirty.next();
            let pause = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            // All three lose nothing when dropped: changes are kept in `dirty`.
            tokio::select! {
                () = changed => {}
                () = pause => {}
                () = stop.cancelled() => return,
            }
        }
    }
}

/// Watch a package: what is in it, and its folder, where it may be replaced.
fn watch(watcher: &mut RecommendedWatcher, path: &Path) -> notify::Result<()> {
    if path.is_dir() {
        watcher.watch(path, RecursiveMode::Recursive)?;
    }
    match path.parent() {
        Some(parent) => watcher.watch(parent, RecursiveMode::NonRecursive),
        None => Ok(()),
    }
}

// === impl Dirty ===

impl Dirty {
    fn note(&self, event: notify::Result<Event>, packages: &Packages, now: Instant) {
        let Ok(event) = event else { return };
        let all = event.need_rescan();
        if !all && !is_change(&event.kind) {
            return;
        }
        let mut dirty = self.packages.lock();
        for package in packages.keys() {
            if all || event.paths.iter().any(|path| path.starts_with(package)) {
                let first = Change { first: now, last: now };
                dirty.entry(package.clone()).or_insert(first).last = now;
            }
        }
        drop(dirty);
        self.changed.notify_one();
    }

    /// Take the packages that are quiet.
    fn settled(&self, now: Instant) -> Vec<PathBuf> {
        let mut dirty = self.packages.lock();
        let ready: Vec<_> = dirty
            .iter()
            .filter(|(_, change)| change.due() <= now)
            .map(|(package, _)| package.clone())
            .collect();
        dirty.retain(|package, _| !ready.contains(package));
        ready
    }

    /// When the next package will have been quiet for long enough.
    fn next(&self) -> Option<Instant> {
        self.packages.lock().values().copied().map(Change::due).min()
    }
}

impl Change {
    fn due(self) -> Instant {
        (self.last + SETTLE).min(self.first + MAX_SETTLE)
    }
}

/// Whether a package may be another one after this: reading is no change, and a
/// server reads what it loads.
fn is_change(kind: &EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        EventKind::Modify(ModifyKind::Metadata(
            MetadataKind::AccessTime | MetadataKind::Permissions | MetadataKind::Ownership,
        )) => false,
        _ => true,
    }
}
