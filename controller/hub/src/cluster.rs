//! A policy from a cluster: the `Site`s and `Rollout`s of one namespace, which Argo CD, Flux or people put there.
//! All of them together are one policy, as the files of a commit are; what becomes of each is written into
//! its status.

mod status;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, ResourceExt as _};
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, Resource};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use wick_api::fleet::{Rollout, Site};
use wick_package::{Digest, error_text};

use self::status::Standing;
use crate::hub::Input;
use crate::policy::{API_VERSION, File, ROLLOUTS, SITES};
use crate::shared::{KeptPolicy, POLICY, Shared};
use crate::source::{Fetched, Origin};
use crate::store::Table;

/// Who writes the statuses.
const MANAGER: &str = "wick-hub";

/// Objects that are applied together are looked at together: so long after the last of them, and never later
/// than this after the first.
const QUIET: Duration = Duration::from_millis(300);
const LATEST: Duration = Duration::from_secs(3);

/// How long after the last failure of a watch it is held to have recovered: when it has, nothing says so.
const RECOVERED: Duration = Duration::from_secs(30);

/// How often statuses are compared with what is so, and how many are written each time: with more the API
/// server would be busy with us.
const REPORT: Duration = Duration::from_secs(2);
const MAX_WRITES: usize = 100;

/// Longest write, and how long nothing is written after one that failed.
const WRITE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_secs(30);

/// Where the objects are.
#[derive(Clone)]
pub struct ClusterSettings {
    pub client: Client,
    pub namespace: String,
}

/// One kind of objects, as they are in the cluster. Read as plain data, so that a wrong one is told like a wrong
/// file and does not hide the others.
struct Kind {
    folder: &'static str,
    resource: ApiResource,
    api: Api<DynamicObject>,
    store: Store<DynamicObject>,
}

/// What was read together.
#[derive(Default)]
struct Read {
    /// A digest of all of it.
    version: String,
    files: BTreeMap<String, String>,
}

/// Read and report for as long as there is a hub.
pub async fn follow(
    settings: ClusterSettings,
    mut known: Option<String>,
    shared: Arc<Shared>,
    inputs: mpsc::Sender<Input>,
) {
    let (sites, site_changes) = watch::<Site>(&settings, SITES);
    let (rollouts, rollout_changes) = watch::<Rollout>(&settings, ROLLOUTS);
    // Rollouts first: what is said of them is what keeps them from being changed.
    let kinds = [rollouts, sites];
    let mut changes = pin!(futures::stream::select(site_changes, rollout_changes));
    let stores = kinds.each_ref().map(|kind| kind.store.clone());
    let mut ready = pin!(async move {
        for store in &stores {
            // The store ends with this task.
            let _ = store.wait_until_ready().await;
        }
    });
    let (mut is_ready, mut first, mut last) = (false, Instant::now(), Instant::now());
    let mut dirty = true;
    let (mut newest, mut in_force) = (Read::default(), kept(&shared));
    let mut silent = Instant::now();
    let mut report = interval(REPORT);
    report.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            change = changes.next() => match change {
                Some(Ok(())) => {
                    last = Instant::now();
                    first = if dirty { first } else { last };
                    dirty = true;
                }
                Some(Err(error)) => {
                    let why = format!("the cluster can't be watched: {}", error_text(&error));
                    if inputs.send(Input::NoPolicy(why)).await.is_err() { return }
                    (first, last) = (Instant::now() + RECOVERED, Instant::now() + RECOVERED);
                    dirty = true;
                }
                None => return,
            },
            () = &mut ready, if !is_ready => is_ready = true,
            () = sleep_until((last + QUIET).min(first + LATEST)), if dirty && is_ready => {
                dirty = false;
                newest = read(&kinds);
                let said = if known.as_ref() == Some(&newest.version) {
                    Input::Unchanged
                } else {
                    known = Some(newest.version.clone());
                    Input::Policy(newest.fetched())
                };
                if inputs.send(said).await.is_err() { return }
            }
            _ = report.tick(), if is_ready && !dirty && silent <= Instant::now() => {
                let wanted = statuses(&kinds, &shared, &newest, &mut in_force);
                if !write(wanted).await {
                    silent = Instant::now() + PAUSE;
                }
            }
        }
    }
}

/// One kind's objects, and the stream that keeps them up to date as it is read. It goes on forever.
fn watch<K: Resource<DynamicType = ()>>(
    settings: &ClusterSettings,
    folder: &'static str,
) -> (Kind, impl Stream<Item = Result<(), watcher::Error>> + use<K>) {
    let resource = ApiResource::erase::<K>(&());
    let api: Api<DynamicObject> =
        Api::namespaced_with(settings.client.clone(), &settings.namespace, &resource);
    let writer = reflector::store::Writer::<DynamicObject>::new(resource.clone());
    let store = writer.as_reader();
    let heard = watcher(api.clone(), watcher::Config::default()).default_backoff();
    let heard = heard.modify(|object| object.managed_fields_mut().clear());
    let changes = reflector::reflector(writer, heard).map(|event| event.map(|_| ()));
    (Kind { folder, resource, api, store }, changes)
}

/// All objects as the files that they would be.
fn read(kinds: &[Kind]) -> Read {
    let mut files = BTreeMap::new();
    for kind in kinds {
        for object in kind.store.state() {
            files.insert(kind.path(&object), kind.text(&object));
        }
    }
    let all: Vec<_> = files.iter().collect();
    let version = Digest::of(&serde_json::to_vec(&all).unwrap_or_default()).to_string();
    Read { version, files }
}

/// The policy in force, as a start finds it.
fn kept(shared: &Shared) -> Read {
    let kept = tokio::task::block_in_place(|| shared.store.get::<KeptPolicy>(Table::Meta, POLICY));
    let Ok(Some(KeptPolicy { commit, files })) = kept else { return Read::default() };
    let files = files.into_iter().map(|file| (file.path, file.text)).collect();
    Read { version: commit, files }
}

/// What is to be said of objects, where that is not what their status says.
fn statuses<'a>(
    kinds: &'a [Kind],
    shared: &Shared,
    newest: &Read,
    in_force: &mut Read,
) -> Vec<(&'a Kind, Arc<DynamicObject>, Value)> {
    let state = shared.state.read();
    if state.source.commit.as_ref() == Some(&newest.version) {
        in_force.files.clone_from(&newest.files);
    } else if state.source.tried.as_ref() != Some(&newest.version) {
        // Nobody has looked at it yet.
        return Vec::new();
    }
    let now = jiff::Timestamp::now();
    let mut wanted = Vec::new();
    for kind in kinds {
        for object in kind.store.state() {
            let path = kind.path(&object);
            let same = in_force.files.get(&path) == Some(&kind.text(&object));
            let standing = Standing::of(&state.source, &path, same);
            let status = match kind.folder {
                SITES => json(&status::site(&state, &object, &standing, now)),
                _ => json(&status::rollout(&state, &object, &standing, now)),
            };
            if status::ours(&object) != status && wanted.len() < MAX_WRITES {
                wanted.push((kind, object, status));
            }
        }
    }
    wanted
}

/// False if one could not be written; then no other is tried now.
async fn write(wanted: Vec<(&Kind, Arc<DynamicObject>, Value)>) -> bool {
    for (kind, object, status) in wanted {
        let name = object.name_any();
        let body = json!({
            "apiVersion": kind.resource.api_version, "kind": kind.resource.kind, "status": status,
            // One that was made again under its name is another one.
            "metadata": {"name": name, "uid": object.metadata.uid},
        });
        let params = PatchParams::apply(MANAGER).force();
        let body = Patch::Apply(&body);
        let patch = kind.api.patch_status(&name, &params, &body);
        let error = match tokio::time::timeout(WRITE, patch).await {
            Ok(Ok(_)) => continue,
            // It has gone or is another one by now, which the watch tells.
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => continue,
            Ok(Err(error)) => error_text(&error),
            Err(_) => format!("the API server has not answered for {} s", WRITE.as_secs()),
        };
        let kind = kind.resource.kind.as_str();
        tracing::warn!(kind, name, error, "its status can't be written");
        return false;
    }
    true
}

fn json(status: &impl Serialize) -> Value {
    serde_json::to_value(status).unwrap_or_default()
}

// === impl Kind ===

impl Kind {
    /// What the object is called in mistakes.
    fn path(&self, object: &DynamicObject) -> String {
        format!("{}{}", self.folder, object.name_any())
    }

    /// The object as somebody would write it. JSON is YAML.
    fn text(&self, object: &DynamicObject) -> String {
        let written = json!({
            "apiVersion": API_VERSION, "kind": self.resource.kind,
            "metadata": {"name": object.name_any()}, "spec": object.data["spec"],
        });
        written.to_string()
    }
}

// === impl Read ===

impl Read {
    fn fetched(&self) -> Fetched {
        let files = self.files.iter();
        let files = files.map(|(path, text)| File { path: path.clone(), text: text.clone() });
        Fetched { origin: Origin::Cluster, commit: self.version.clone(), files: files.collect() }
    }
}
