//! Versions that were loaded beside what answers, and the switch to a whole set of them.
//!
//! ```text
//!   stage ──▶ Staged (loaded, warmed, probed, asked by nobody) ──▶ show: it and the others of
//!             its set answer, whatever answered before does not ──▶ quiet ──▶ end
//! ```
//!
//! For a host that decides itself which version answers, by something else than version
//! numbers. Requests keep the version that they have found, so a switch breaks none.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::{Entry, Inner, Live, Repository, RepositoryError, Slot, Source, load};

/// How often it is looked whether the last request is done.
const LOOK: Duration = Duration::from_millis(10);

/// Owners of a version that nobody asks: its slot, and the list of what answers.
const OWNERS: usize = 2;

/// A version that is ready to answer.
pub struct Staged {
    inner: Arc<Inner>,
    entry: Arc<Entry>,
}

// === impl Repository ===

impl Repository {
    /// Load, warm and probe a package beside what answers.
    ///
    /// # Errors
    /// It can't be opened or loaded. Whatever answers goes on.
    pub async fn stage(&self, source: Source) -> Result<Staged, RepositoryError> {
        let package = load::open(&self.inner, source.path.clone()).await?;
        let entry = Arc::new(Entry::new(package.manifest().name.to_string()));
        entry.slots.store(Arc::new(vec![Arc::new(Slot::new(package, source))]));
        load::versions(&self.inner, &entry, None).await?;
        Ok(Staged { inner: Arc::clone(&self.inner), entry })
    }

    /// Let requests go to these, and to nothing else, from this moment on. Of two with one name
    /// the later answers.
    pub fn show<'a>(&self, set: impl IntoIterator<Item = &'a Staged>) {
        let _adding = self.inner.adding.lock();
        let set = set.into_iter().map(|one| (one.entry.name.clone(), Arc::clone(&one.entry)));
        self.inner.entries.store(Arc::new(set.collect::<BTreeMap<_, _>>()));
    }
}

// === impl Staged ===

impl Staged {
    /// The model's name, as its package has it.
    pub fn name(&self) -> &str {
        &self.entry.name
    }

    fn live(&self) -> Option<Arc<Live>> {
        self.entry.answers.load().first().cloned()
    }

    /// Wait until nobody asks it any more, once it is no longer shown.
    pub fn quiet(&self) -> impl Future<Output = ()> + Send + use<> {
        let live = self.live().as_ref().map_or_else(Weak::new, Arc::downgrade);
        async move {
            loop {
                // First, so that who has found it has time to hold it.
                tokio::time::sleep(LOOK).await;
                let Some(live) = live.upgrade() else { return };
                // And this one.
                if live.gate.load() == (0, 0) && Arc::strong_count(&live) <= OWNERS + 1 {
                    return;
                }
            }
        }
    }

    /// Let go of it, and wait until its last request is done and its memory is free.
    pub async fn end(self) {
        let live = self.live().as_ref().map_or_else(Weak::new, Arc::downgrade);
        let graphs = live.upgrade().map_or_else(Vec::new, |live| live.model.graphs());
        let Self { inner, entry } = self;
        let shown = inner.entries.load().get(&entry.name).cloned();
        let shown = shown.iter().flat_map(|entry| entry.answers.load_full().to_vec());
        let now: Vec<_> = shown.flat_map(|live| live.model.graphs()).collect();
        inner.metrics.set_devices(&entry.name, &graphs, &now);
        drop(entry);
        while live.strong_count() > 0 {
            tokio::time::sleep(LOOK).await;
        }
        inner.give_back();
    }
}

impl fmt::Debug for Staged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Staged").field(&self.entry.name).finish()
    }
}
