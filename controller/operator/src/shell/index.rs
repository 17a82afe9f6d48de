//! What is looked at of one kind of objects, by the Model that they belong to. A turn looks at its own Model's,
//! however many others there are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem;
use std::sync::Arc;

use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt as _};
use parking_lot::RwLock;
use tokio::sync::watch;

use super::queue::Key;
use crate::desired::MODEL_LABEL;

/// Of each object of one kind what is looked at. Cloning shares it.
pub struct Index<V> {
    inner: Arc<Inner<V>>,
}

struct Inner<V> {
    objects: RwLock<Objects<V>>,
    ready: watch::Sender<bool>,
}

struct Objects<V> {
    now: Table<V>,
    /// What a list that is not at its end has said so far.
    listed: Table<V>,
}

struct Table<V> {
    by_model: HashMap<Key, BTreeMap<String, Arc<V>>>,
    /// To which Model each object belongs, by its own name: labels may change.
    owners: HashMap<Key, Key>,
}

/// The Model that an object says to belong to.
pub fn owner<K: Resource>(object: &K) -> Option<Key> {
    let meta = object.meta();
    let name = meta.labels.as_ref()?.get(MODEL_LABEL)?;
    Some(Key { namespace: meta.namespace.clone()?, name: name.clone() })
}

// === impl Index ===

impl<V> Index<V> {
    pub fn new() -> Self {
        let objects = RwLock::new(Objects { now: Table::default(), listed: Table::default() });
        Self { inner: Arc::new(Inner { objects, ready: watch::Sender::new(false) }) }
    }

    /// Take in what the watch says, and keep of an object what `view` gives; nothing, if it gives nothing. The
    /// Models for which something may have changed.
    pub fn take<K: Resource>(
        &self,
        event: &Event<K>,
        view: impl Fn(&K) -> Option<V>,
    ) -> BTreeSet<Key> {
        let mut objects = self.inner.objects.write();
        let mut changed = BTreeSet::new();
        match event {
            Event::Init => objects.listed = Table::default(),
            Event::InitApply(object) => drop(objects.listed.put(object, view(object))),
            Event::InitDone => {
                let listed = mem::take(&mut objects.listed);
                let before = mem::replace(&mut objects.now, listed);
                // Of what is gone since nothing else tells.
                changed.extend(before.by_model.into_keys());
                changed.extend(objects.now.by_model.keys().cloned());
                drop(objects);
                self.inner.ready.send_replace(true);
            }
            Event::Apply(object) => {
                changed.extend(objects.now.put(object, view(object)));
                changed.extend(owner(object));
            }
            Event::Delete(object) => {
                changed.extend(objects.now.remove(object));
                changed.extend(owner(object));
            }
        }
        changed
    }

    /// Returns when everything has been read once.
    pub async fn ready(&self) {
        // The sender is ours: it is there for as long as we are.
        let _ = self.inner.ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// What is kept of a Model's objects, in the order of their names.
    pub fn of(&self, key: &Key) -> Vec<Arc<V>> {
        let objects = self.inner.objects.read();
        objects.now.by_model.get(key).into_iter().flat_map(BTreeMap::values).cloned().collect()
    }
}

impl<V> Clone for Index<V> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

// === impl Table ===

impl<V> Table<V> {
    /// To which Model it belonged before.
    fn put<K: Resource>(&mut self, object: &K, view: Option<V>) -> Option<Key> {
        let before = self.remove(object);
        if let (Some(model), Some(view)) = (owner(object), view) {
            self.owners.insert(itself(object), model.clone());
            self.by_model.entry(model).or_default().insert(object.name_any(), Arc::new(view));
        }
        before
    }

    /// To which Model it belonged.
    fn remove<K: Resource>(&mut self, object: &K) -> Option<Key> {
        let model = self.owners.remove(&itself(object))?;
        if let Some(objects) = self.by_model.get_mut(&model) {
            objects.remove(&object.name_any());
            if objects.is_empty() {
                self.by_model.remove(&model);
            }
        }
        Some(model)
    }
}

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self { by_model: HashMap::new(), owners: HashMap::new() }
    }
}

/// An object's own name.
fn itself<K: Resource>(object: &K) -> Key {
    Key { namespace: object.namespace().unwrap_or_default(), name: object.name_any() }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;

    fn pod(name: &str, namespace: &str, model: &str) -> Pod {
        let metadata =
            json!({"name": name, "namespace": namespace, "labels": {MODEL_LABEL: model}});
        serde_json::from_value(json!({"metadata": metadata})).unwrap()
    }

    fn names(index: &Index<String>, namespace: &str, model: &str) -> Vec<String> {
        let key = Key { namespace: namespace.to_owned(), name: model.to_owned() };
        index.of(&key).iter().map(|name| name.as_str().to_owned()).collect()
    }

    /// The names of the Models that change.
    fn take(index: &Index<String>, event: &Event<Pod>) -> Vec<String> {
        let view = |pod: &Pod| pod.metadata.name.clone().filter(|name| name != "hidden");
        index.take(event, view).into_iter().map(|key| key.name).collect()
    }

    #[test]
    fn objects_are_found_by_their_model() {
        let index = Index::new();
        for pod in [pod("a", "here", "m"), pod("b", "here", "n"), pod("a", "there", "m")] {
            take(&index, &Event::Apply(pod));
        }
        assert_eq!(names(&index, "here", "m"), ["a"]);
        assert_eq!(names(&index, "there", "m"), ["a"]);
        // Whose label changes belongs to another, and to nobody without one.
        assert_eq!(take(&index, &Event::Apply(pod("a", "here", "n"))), ["m", "n"]);
        assert_eq!(names(&index, "here", "m"), [""; 0]);
        assert_eq!(names(&index, "here", "n"), ["a", "b"]);
        let mut bare = pod("a", "here", "n");
        bare.metadata.labels = None;
        take(&index, &Event::Apply(bare));
        assert_eq!(names(&index, "here", "n"), ["b"]);
        take(&index, &Event::Delete(pod("b", "here", "other")));
        assert_eq!(names(&index, "here", "n"), [""; 0]);
        // Of which nothing is kept is not there, even if there was something before.
        take(&index, &Event::Apply(pod("hidden", "there", "m")));
        assert_eq!(names(&index, "there", "m"), ["a"]);
        assert!(index.inner.objects.read().now.by_model.len() == 1);
    }

    #[tokio::test]
    async fn a_new_list_takes_the_place_of_the_old_at_its_end() {
        let index = Index::new();
        for event in [Event::Init, Event::InitApply(pod("a", "here", "m")), Event::InitDone] {
            assert!(!*index.inner.ready.borrow());
            take(&index, &event);
        }
        index.ready().await;
        assert_eq!(names(&index, "here", "m"), ["a"]);
        take(&index, &Event::Init);
        take(&index, &Event::InitApply(pod("b", "here", "m")));
        assert_eq!(names(&index, "here", "m"), ["a"]);
        // Who has lost something looks, too.
        take(&index, &Event::InitApply(pod("c", "here", "n")));
        assert_eq!(take(&index, &Event::InitDone), ["m", "n"]);
        assert_eq!(names(&index, "here", "m"), ["b"]);
    }
}
