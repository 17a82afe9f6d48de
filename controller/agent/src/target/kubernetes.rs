//! A cluster: one `Model` for each package name, pinned to its digest. The operator of the site moves the
//! traffic, and the nodes fetch the bytes.
//!
//! | asked | done |
//! |---|---|
//! | fetch, evict | nothing: images are the nodes' |
//! | start | the `Model` is applied with the new digest; the operator starts it beside the old revision and moves the traffic when it is ready |
//! | ready | the operator says that the active revision has this digest, and that it is ready |
//! | died | the operator has left the revision (its own rollback), or the `Model` was taken away |
//! | activate | confirmed as soon as every `Model` is active with its digest |
//! | drain | nothing: the operator drains |
//! | stop | the `Model` is deleted, if it has this digest still; a version that was given up makes room for the one that serves |

mod judge;
mod pods;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::runtime::watcher;
use kube::{Client, ResourceExt as _};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use wick_api::Model as Resource;
use wick_fleet::converge::{Event, Fault, Kept, Version};
use wick_fleet::{Generation, Model, SiteName};
use wick_package::{Digest, error_text};
use wick_serve::Traffic;

use super::{Events, Found, Target, TargetError, tell};
use judge::{MANAGER, SITE, Seen, active_digest, judge, resource, spec_digest};
use pods::Pods;

/// Pause after the API server did not answer a write, and before it is watched again.
const PAUSE: Duration = Duration::from_secs(5);

/// Tries of one write. The site asks again by itself.
const TRIES: u32 = 6;

/// Most Models of one list; a site has at most 64.
const PAGE: u32 = 200;

/// Where Models are applied.
pub struct KubernetesSettings {
    pub client: Client,
    pub namespace: String,
    pub site: SiteName,
}

/// The target. Cloning shares it.
#[derive(Clone)]
pub struct Kubernetes {
    inner: Arc<Inner>,
}

struct Inner {
    api: Api<Resource>,
    pods: Pods,
    site: SiteName,
    events: Events,
    state: Mutex<State>,
    /// One write at a time, in the order in which they were asked for.
    writes: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    /// As the API server has them.
    seen: BTreeMap<String, Resource>,
    versions: BTreeMap<Version, Run>,
    /// Waits for traffic.
    activating: Option<(Generation, Vec<Version>)>,
    /// In the middle of a list, what is not there yet is not gone.
    listing: bool,
}

struct Run {
    model: Model,
    ready: bool,
}

// === impl Kubernetes ===

impl Kubernetes {
    pub fn new(settings: KubernetesSettings, events: Events) -> Self {
        let api = Api::namespaced(settings.client.clone(), &settings.namespace);
        let pods = Pods::new(Api::namespaced(settings.client, &settings.namespace));
        let inner = Inner {
            api,
            pods,
            site: settings.site,
            events,
            state: Mutex::default(),
            writes: tokio::sync::Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Hear what becomes of the Models, until `stop`.
    pub async fn watch(&self, stop: CancellationToken) {
        let config = watcher::Config::default().labels(&self.inner.selector());
        let mut stream = pin!(watcher(self.inner.api.clone(), config));
        loop {
            let heard = tokio::select! {
                heard = stream.next() => heard,
                () = stop.cancelled() => return,
            };
            match heard {
                Some(Ok(event)) => self.inner.heard(event),
                Some(Err(error)) => {
                    tracing::warn!(error = error_text(&error), "Models can't be watched");
                    tokio::time::sleep(PAUSE).await;
                }
                None => return,
            }
        }
    }
}

impl Target for Kubernetes {
    async fn look(&self, kept: &Kept) -> Result<Found, TargetError> {
        let params = ListParams::default().labels(&self.inner.selector()).limit(PAGE);
        let list = loop {
            match self.inner.api.list(&params).await {
                Ok(list) => break list,
                // Pods go on without us: nothing is decided before it is known what runs.
                Err(error) => {
                    tracing::warn!(
                        error = error_text(&error),
                        "Models can't be listed: trying again"
                    );
                    tokio::time::sleep(PAUSE).await;
                }
            }
        };
        let specs: Vec<_> = [&kept.serving, &kept.wanted].into_iter().flatten().collect();
        let known: Vec<_> = specs.iter().flat_map(|spec| spec.models.clone()).collect();
        let stored = known.iter().map(|model| (model.digest, model.bytes)).collect();
        let mut found = Found { running: Vec::new(), stored };
        let mut state = self.inner.state.lock();
        for resource in list {
            let name = resource.name_any();
            let active = active_digest(&resource);
            let runs = known
                .iter()
                .find(|model| model.name.as_str() == name && Some(model.digest) == active);
            if let Some(model) = runs {
                let run = Run { model: model.clone(), ready: true };
                state.versions.insert(Version::from(model), run);
                found.running.push(model.clone());
            }
            let wanted = known.iter().any(|model| Some(model.digest) == spec_digest(&resource));
            match runs {
                // It was given up while nobody looked.
                Some(model) if !wanted => self.inner.apply(model.clone()),
                None if !wanted => self.inner.delete(name.clone()),
                _ => {}
            }
            state.seen.insert(name, resource);
        }
        Ok(found)
    }

    fn fetch(&self, model: Model) {
        tell(&self.inner.events, Event::Fetched { digest: model.digest });
    }

    fn cancel(&self, digest: Digest) {
        tell(&self.inner.events, Event::FetchFailed { digest, fault: Fault::Cancelled });
    }

    fn evict(&self, digest: Digest) {
        tell(&self.inner.events, Event::Evicted { digest });
    }

    fn start(&self, model: Model) {
        let run = Run { model: model.clone(), ready: false };
        self.inner.state.lock().versions.insert(Version::from(&model), run);
        self.inner.apply(model);
    }

    fn stop(&self, version: Version) {
        let (has, other) = {
            let mut state = self.inner.state.lock();
            state.versions.remove(&version);
            let seen = state.seen.get(version.name.as_str());
            let has = seen.is_none_or(|seen| spec_digest(seen) == Some(version.digest));
            (has, state.other(&version))
        };
        match (has, other) {
            (false, _) => {}
            (true, Some(model)) => self.inner.apply(model),
            (true, None) => self.inner.delete(version.name.as_str().to_owned()),
        }
        tell(&self.inner.events, Event::Stopped { version });
    }

    fn activate(&self, generation: Generation, versions: Vec<Version>) {
        let mut state = self.inner.state.lock();
        state.activating = Some((generation, versions));
        self.inner.look_at(&mut state);
    }

    fn drain(&self, version: Version) {
        tell(&self.inner.events, Event::Drained { version });
    }

    async fn traffic(&self) -> Option<Traffic> {
        let models: Vec<_> = self.inner.state.lock().seen.keys().cloned().collect();
        self.inner.pods.traffic(&models).await
    }

    fn metrics(&self) -> Vec<u8> {
        Vec::new()
    }
}

// === impl Inner ===

impl Inner {
    fn selector(&self) -> String {
        format!("{SITE}={},app.kubernetes.io/managed-by={MANAGER}", self.site)
    }

    fn heard(self: &Arc<Self>, event: watcher::Event<Resource>) {
        let mut state = self.state.lock();
        match event {
            watcher::Event::Apply(resource) | watcher::Event::InitApply(resource) => {
                state.seen.insert(resource.name_any(), resource);
            }
            watcher::Event::Delete(resource) => {
                let name = resource.name_any();
                state.seen.remove(&name);
                self.lost(&mut state, |version| version.name.as_str() == name);
            }
            watcher::Event::Init => {
                state.seen.clear();
                state.listing = true;
            }
            watcher::Event::InitDone => {
                state.listing = false;
                let names: BTreeSet<_> = state.seen.keys().cloned().collect();
                self.lost(&mut state, |version| !names.contains(version.name.as_str()));
            }
        }
        if !state.listing {
            self.look_at(&mut state);
        }
    }

    /// Somebody took away what has been ready.
    fn lost(&self, state: &mut State, is_lost: impl Fn(&Version) -> bool) {
        let lost = state.versions.iter().filter(|(version, run)| run.ready && is_lost(version));
        let lost: Vec<_> = lost.map(|(version, _)| version.clone()).collect();
        for version in lost {
            tracing::warn!(%version, "its Model is gone");
            state.versions.remove(&version);
            tell(&self.events, Event::Died { version });
        }
    }

    /// Tell what has become so.
    fn look_at(self: &Arc<Self>, state: &mut State) {
        let mut left = Vec::new();
        for (version, run) in &mut state.versions {
            match judge(state.seen.get(version.name.as_str()), version.digest) {
                Seen::Active if !run.ready => {
                    run.ready = true;
                    tell(&self.events, Event::Ready { version: version.clone() });
                }
                Seen::Left => left.push(version.clone()),
                Seen::Active | Seen::Pending | Seen::Gone => {}
            }
        }
        for version in left {
            tracing::warn!(%version, "the operator has gone back from it");
            state.versions.remove(&version);
            // Only a spec that changes makes the operator try it again.
            if let Some(model) = state.other(&version) {
                self.apply(model);
            }
            tell(&self.events, Event::Died { version });
        }
        let seen = &state.seen;
        let active = |version: &Version| {
            judge(seen.get(version.name.as_str()), version.digest) == Seen::Active
        };
        if let Some((generation, versions)) = &state.activating
            && versions.iter().all(active)
        {
            tell(&self.events, Event::Activated { generation: *generation });
            state.activating = None;
        }
    }

    fn apply(self: &Arc<Self>, model: Model) {
        let inner = Arc::clone(self);
        tokio::spawn(async move {
            let value = resource(&model, &inner.site);
            let params = PatchParams::apply(MANAGER);
            let name = model.name.as_str();
            let patch = Patch::Apply(&value);
            let write = || async { inner.api.patch(name, &params, &patch).await.map(drop) };
            if let Err(error) = inner.write(write).await {
                let error = error_text(&error);
                tracing::warn!(model = name, error, "the Model can't be applied");
                let version = Version::from(&model);
                inner.state.lock().versions.remove(&version);
                tell(&inner.events, Event::Died { version });
            }
        });
    }

    fn delete(self: &Arc<Self>, name: String) {
        let inner = Arc::clone(self);
        tokio::spawn(async move {
            let params = DeleteParams::default();
            let write = || async {
                match inner.api.delete(&name, &params).await {
                    Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(()),
                    deleted => deleted.map(drop),
                }
            };
            if let Err(error) = inner.write(write).await {
                tracing::warn!(
                    model = name,
                    error = error_text(&error),
                    "the Model can't be deleted"
                );
            }
        });
    }

    /// Write, and again after what passes by itself.
    async fn write<F>(&self, write: impl Fn() -> F) -> Result<(), kube::Error>
    where
        F: Future<Output = Result<(), kube::Error>>,
    {
        let _one_at_a_time = self.writes.lock().await;
        let mut tries = 0;
        loop {
            tries += 1;
            match write().await {
                Ok(()) => return Ok(()),
                Err(kube::Error::Api(answer))
                    if (400..500).contains(&answer.code) && answer.code != 429 =>
                {
                    return Err(kube::Error::Api(answer));
                }
                Err(error) if tries == TRIES => return Err(error),
                Err(error) => {
                    tracing::debug!(error = error_text(&error), "trying again");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

// === impl State ===

impl State {
    /// Another version of the same model.
    fn other(&self, than: &Version) -> Option<Model> {
        let mut others = self.versions.iter().filter(|(version, _)| version.name == than.name);
        others.next().map(|(_, run)| run.model.clone())
    }
}
