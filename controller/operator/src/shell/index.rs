//! What there is of one kind, by the Model that it belongs to. A turn looks at its own Model's objects, however
//! many others there are.

use std::collections::{BTreeMap, HashMap};
use std::mem;
use std::sync::Arc;

use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt as _};
use parking_lot::RwLock;
use tokio::sync::watch;

use super::queue::Key;
use crate::desired::MODEL_LABEL;

/// Objects of one kind. Cloning shares them.
pub struct Index<K> {
    inner: Arc<Inner<K>>,
}

struct Inner<K> {
    objects: RwLock<Objects<K>>,
    ready: watch::Sender<bool>,
}

struct Objects<K> {
    now: Table<K>,
    /// What a list that is not at its end has said so far.
    listed: Table<K>,
}

struct Table<K> {
    by_model: HashMap<Key, BTreeMap<String, Arc<K>>>,
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

impl<K: Resource + Clone> Index<K> {
    pub fn new() -> Self {
        let objects = RwLock::new(Objects { now: Table::default(), listed: Table::default() });
        Self { inner: Arc::new(Inner { objects, ready: watch::Sender::new(false) }) }
    }

    /// Take in what the watch says.
    pub fn take(&self, event: &Event<K>) {
        let mut objects = self.inner.objects.write();
        match event {
            Event::Init => objects.listed = Table::default(),
            Event::InitApply(object) => objects.listed.put(object),
            Event::InitDone => {
                objects.now = mem::take(&mut objects.listed);
                drop(objects);
                self.inner.ready.send_replace(true);
            }
            Event::Apply(object) => objects.now.put(object),
            Event::Delete(object) => objects.now.remove(object),
        }
    }

    /// Returns when everything has been read once.
    pub async fn ready(&self) {
        // The sender is ours: it is there for as long as we are.
        let _ = self.inner.ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// The objects of a Model, by their names.
    pub fn of(&self, key: &Key) -> Vec<Arc<K>> {
        let objects = self.inner.objects.read();
        objects.now.by_model.get(key).into_iter().flat_map(BTreeMap::values).cloned().collect()
    }
}

impl<K> Clone for Index<K> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

// === impl Table ===

impl<K: Resource + Clone> Table<K> {
    fn put(&mut self, object: &K) {
        self.remove(object);
        let Some(model) = owner(object) else { return };
        self.owners.insert(itself(object), model.clone());
        self.by_model.entry(model).or_default().insert(object.name_any(), Arc::new(object.clone()));
    }

    fn remove(&mut self, object: &K) {
        let Some(model) = self.owners.remove(&itself(object)) else { return };
        if let Some(objects) = self.by_model.get_mut(&model) {
            objects.remove(&object.name_any());
            if objects.is_empty() {
                self.by_model.remove(&model);
            }
        }
    }
}

impl<K> Default for Table<K> {
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

    fn names(index: &Index<Pod>, namespace: &str, model: &str) -> Vec<String> {
        let key = Key { namespace: namespace.to_owned(), name: model.to_owned() };
        index.of(&key).iter().map(|pod| pod.name_any()).collect()
    }

    #[test]
    fn objects_are_found_by_their_model() {
        let index = Index::new();
        for pod in [pod("a", "here", "m"), pod("b", "here", "n"), pod("a", "there", "m")] {
            index.take(&Event::Apply(pod));
        }
        assert_eq!(names(&index, "here", "m"), ["a"]);
        assert_eq!(names(&index, "there", "m"), ["a"]);
        // Whose label changes belongs to another, and to nobody without one.
        index.take(&Event::Apply(pod("a", "here", "n")));
        assert_eq!(names(&index, "here", "m"), [""; 0]);
        assert_eq!(names(&index, "here", "n"), ["a", "b"]);
        let mut bare = pod("a", "here", "n");
        bare.metadata.labels = None;
        index.take(&Event::Apply(bare));
        assert_eq!(names(&index, "here", "n"), ["b"]);
        index.take(&Event::Delete(pod("b", "here", "other")));
        assert_eq!(names(&index, "here", "n"), [""; 0]);
        assert!(index.inner.objects.read().now.by_model.len() == 1);
    }

    #[tokio::test]
    async fn a_new_list_takes_the_place_of_the_old_at_its_end() {
        let index = Index::new();
        for event in [Event::Init, Event::InitApply(pod("a", "here", "m")), Event::InitDone] {
            assert!(!*index.inner.ready.borrow());
            index.take(&event);
        }
        index.ready().await;
        assert_eq!(names(&index, "here", "m"), ["a"]);
        index.take(&Event::Init);
        index.take(&Event::InitApply(pod("b", "here", "m")));
        assert_eq!(names(&index, "here", "m"), ["a"]);
        index.take(&Event::InitDone);
        assert_eq!(names(&index, "here", "m"), ["b"]);
    }
}
