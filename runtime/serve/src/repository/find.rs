//! Which model a request is for, and what reports say of all of them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use wick_engine::ModelKind;

use super::{Entry, Live, MAX_NAMES_SHOWN, ModelStatus, Repository, Slot, State};
use crate::codec::clip;
use crate::forward::{self, Route};
use crate::respond::Failure;

impl Repository {
    /// The live model for a request that is about to be answered by it. One that is cold and
    /// whose package has changed meanwhile is loaded anew, as what it is now.
    ///
    /// # Errors
    /// It is unknown, has another version, is not ready, or the server drains.
    pub async fn acquire(&self, name: &str, version: Option<&str>) -> Result<Arc<Live>, Failure> {
        let live = self.find(name, version)?;
        if live.is_cold() && !live.model.is_unchanged() && self.reload(name).await.is_ok() {
            return self.find(name, version);
        }
        Ok(live)
    }

    /// The live model that a request would get.
    ///
    /// # Errors
    /// It is unknown, has another version, is not ready, or the server drains.
    pub fn get(&self, name: &str, version: Option<&str>) -> Result<Arc<Live>, Failure> {
        let live = self.find(name, version)?;
        // A request is tried all the same: it may be the one that works again.
        if live.fault().is_some() {
            return Err(Failure::NotReady { model: live.name.clone(), state: State::Failed });
        }
        Ok(live)
    }

    /// Whether a model takes requests.
    ///
    /// # Errors
    /// It is unknown or has another version.
    pub(crate) fn model_ready(&self, name: &str, version: Option<&str>) -> Result<bool, Failure> {
        match self.get(name, version) {
            Ok(_) => Ok(true),
            Err(Failure::NotReady { .. } | Failure::Draining) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// As [`Repository::get`], for a look that draining does not forbid.
    ///
    /// # Errors
    /// It is unknown, has another version, or is not ready.
    pub fn peek(&self, name: &str, version: Option<&str>) -> Result<Arc<Live>, Failure> {
        let entries = self.inner.entries.load();
        let entry = entries.get(name).ok_or_else(|| unknown(name, &entries))?;
        let answers = entry.answers.load();
        let found = match version {
            None => answers.first(),
            Some(version) => answers.iter().find(|live| live.version == version),
        };
        found.cloned().ok_or_else(|| entry.missing(version))
    }

    fn find(&self, name: &str, version: Option<&str>) -> Result<Arc<Live>, Failure> {
        if self.is_draining() && self.inner.entries.load().contains_key(name) {
            return Err(Failure::Draining);
        }
        self.peek(name, version)
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
            .filter(|entry| matches!(*entry.kind.lock(), None | Some(ModelKind::Http)));
        let first = http.next();
        match (first, forward::route(path, http.next().is_none())) {
            (None, _) => Err(Failure::unknown_path(path)),
            (Some(only), Route::Only) => Ok((self.find(&only.name, None)?, 0)),
            (Some(_), Route::Named { model, path: below }) => {
                let known = entries.get(model).map(|entry| *entry.kind.lock());
                match known {
                    None | Some(Some(ModelKind::Passthrough | ModelKind::Handler)) => {
                        Err(Failure::unknown_path(path))
                    }
                    Some(_) => Ok((self.find(model, None)?, path.len() - below.len())),
                }
            }
        }
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
        self.inner.drained.cancel();
    }

    /// Wait until new requests are turned away.
    pub(crate) async fn drained(&self) {
        self.inner.drained.cancelled().await;
    }

    pub fn is_draining(&self) -> bool {
        self.inner.draining.load(Ordering::Acquire)
    }

    /// Whether every model is loaded, warmed and probed.
    pub fn is_ready(&self) -> bool {
        let entries = self.inner.entries.load();
        let ends = self.is_leaving() || self.is_draining();
        !ends && entries.values().all(|entry| entry.is_ready())
    }

    /// The names of all models, in order.
    pub fn names(&self) -> Vec<String> {
        self.inner.entries.load().keys().cloned().collect()
    }

    /// Where a model's packages are.
    pub fn paths(&self, name: &str) -> Vec<PathBuf> {
        let entries = self.inner.entries.load();
        let slots = entries.get(name).map(|entry| entry.slots.load_full());
        slots.iter().flat_map(|slots| slots.iter()).map(|slot| slot.source.path.clone()).collect()
    }

    /// The versions of a model that answer requests, newest first.
    pub fn versions(&self, name: &str) -> Vec<Arc<Live>> {
        let entries = self.inner.entries.load();
        entries.get(name).map_or_else(Vec::new, |entry| entry.answers.load().to_vec())
    }

    /// All versions of all models for reports, in the order of names and versions.
    pub fn statuses(&self) -> Vec<ModelStatus> {
        let entries = self.inner.entries.load();
        let mut all = Vec::new();
        for entry in entries.values() {
            let slots = entry.slots.load();
            let mut slots: Vec<_> = slots.iter().map(|slot| slot.status(&entry.name)).collect();
            slots.sort_by(|(one, _), (other, _)| one.cmp(other));
            all.extend(slots.into_iter().map(|(_, status)| status));
        }
        all
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
            entry.answers.load().iter().for_each(|live| self.take_graphs(live));
        }
        self.inner.metrics.text()
    }
}

// === impl Entry, Slot ===

impl Entry {
    /// As many versions answer as the policy wants, and each is well. While one that is
    /// wanted can't be loaded, an older one may go on in its place.
    fn is_ready(&self) -> bool {
        let answers = self.answers.load();
        let well = answers.iter().filter(|live| live.fault().is_none()).count();
        well > 0 && well >= self.chosen.load(Ordering::Relaxed)
    }

    /// Why there is no such version, or why it does not answer.
    fn missing(&self, version: Option<&str>) -> Failure {
        let mut states: Vec<_> =
            self.slots.load().iter().map(|slot| slot.status(&self.name)).collect();
        states.sort_by(|(one, _), (other, _)| other.cmp(one));
        let asked = |(number, _): &&(semver::Version, ModelStatus)| {
            version.is_none_or(|version| number.to_string() == version)
        };
        let model = self.name.clone();
        // The newest that is on its way says more than one that nobody wants.
        let found = states.iter().filter(asked).min_by_key(|(_, status)| match status.state {
            State::Unloaded => 1,
            _ => 0,
        });
        match (found, version) {
            (Some((_, status)), _) => Failure::NotReady { model, state: status.state },
            (None, version) => {
                let have: Vec<_> = states.iter().map(|(number, _)| number.to_string()).collect();
                let version = clip(version.unwrap_or_default());
                Failure::UnknownVersion { model, version, have: have.join(", ") }
            }
        }
    }
}

impl Slot {
    fn status(&self, name: &str) -> (semver::Version, ModelStatus) {
        let live = self.live.load();
        let (running, waiting) = live.as_ref().map_or((0, 0), |live| live.gate.load());
        let report = self.report.lock();
        let fault = live.as_ref().and_then(|live| live.fault());
        let number = live.as_ref().map(|live| live.model.manifest().version.clone());
        let number = number.unwrap_or_else(|| report.version.clone());
        let status = ModelStatus {
            name: name.to_owned(),
            version: Some(number.to_string()),
            state: report.attempt.state(live.as_ref().map(|live| live.condition())),
            path: self.source.path.clone(),
            last_error: fault
                .map(|fault| (fault.code, fault.text))
                .or_else(|| report.last_error.clone()),
            running,
            waiting,
        };
        (number, status)
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
