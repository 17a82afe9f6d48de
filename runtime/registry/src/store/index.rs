//! `index.json`: which images there are, what they are called, when they were used, and what
//! refers to them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use wick_package::oci::{self, Annotations, Descriptor, Index};
use wick_package::{Digest, Layout, LayoutError, Reference};

use super::walk;
use super::{Lease, Store, StoreError};

/// When an image came and when it was last used, in seconds since 1970, on its entry.
const STORED: &str = "dev.wick.store.stored";
const USED: &str = "dev.wick.store.used";

/// The digest that an entry refers to: a signature, for instance, belongs to an image.
const SUBJECT: &str = "dev.wick.store.subject";

/// How exact the time of use is: the index is not written anew for every start.
const USE_STEP: Duration = Duration::from_secs(3600);

/// Bytes of the index that are still read: some ten thousand images.
const MAX_INDEX: usize = 4 << 20;

/// An image of the store.
#[derive(Debug, Clone)]
pub struct StoredImage {
    /// What it is, without the store's own notes.
    pub descriptor: Descriptor,
    /// Whole names, `registry/repository:tag`, or with a digest where it was pulled by that.
    pub names: Vec<String>,
    pub stored: SystemTime,
    pub used: SystemTime,
    /// What refers to it, for instance signatures.
    pub referrers: Vec<Descriptor>,
}

// === impl StoredImage ===

impl StoredImage {
    pub fn digest(&self) -> Digest {
        self.descriptor.digest
    }

    /// Whether this is what the reference means.
    pub fn answers(&self, reference: &Reference) -> bool {
        match reference.digest() {
            // The repository counts for nothing: the bytes are those.
            Some(digest) => digest == self.digest(),
            None => self.names.iter().any(|name| *name == reference.to_string()),
        }
    }
}

// === impl Store ===

impl Store {
    /// All images, the latest first.
    ///
    /// # Errors
    /// `index.json` was damaged from outside.
    pub fn images(&self) -> Result<Vec<StoredImage>, StoreError> {
        let mut images: BTreeMap<Digest, StoredImage> = BTreeMap::new();
        let entries = self.entries()?;
        for entry in entries.iter().filter(|entry| !entry.annotations.contains_key(SUBJECT)) {
            let image = images.entry(entry.digest).or_insert_with(|| StoredImage {
                descriptor: plain(entry),
                names: Vec::new(),
                stored: time(entry, STORED),
                used: time(entry, USED),
                referrers: Vec::new(),
            });
            image.names.extend(entry.annotations.get(oci::IMAGE_NAME).cloned());
            image.used = image.used.max(time(entry, USED));
        }
        for entry in &entries {
            if let Some(subject) = subject(entry)
                && let Some(image) = images.get_mut(&subject)
            {
                image.referrers.push(plain(entry));
            }
        }
        let mut images: Vec<_> = images.into_values().collect();
        images.sort_by_key(|image| (std::cmp::Reverse(image.stored), image.names.clone()));
        Ok(images)
    }

    /// What refers to a digest.
    ///
    /// # Errors
    /// `index.json` was damaged from outside.
    pub fn referrers(&self, digest: Digest) -> Result<Vec<Descriptor>, StoreError> {
        let entries = self.entries()?;
        let belongs = |entry: &&Descriptor| subject(entry) == Some(digest);
        Ok(entries.iter().filter(belongs).map(plain).collect())
    }

    /// Give an image, whose blobs are here and leased, a name. Another image with the name loses
    /// it, as with a tag that moves.
    ///
    /// # Errors
    /// The index can't be written.
    pub fn name(
        &self,
        _lease: &Lease,
        image: &Descriptor,
        reference: &Reference,
    ) -> Result<(), StoreError> {
        self.change(|entries| put_name(entries, image, reference))
    }

    /// Name several images and note what refers to them, all at once or nothing. Their blobs are
    /// here and leased.
    ///
    /// # Errors
    /// The index can't be written.
    pub(crate) fn enter(
        &self,
        _lease: &Lease,
        images: &[(Reference, Descriptor)],
        referrers: &[(Digest, Descriptor)],
    ) -> Result<(), StoreError> {
        self.change(|entries| {
            for (reference, image) in images {
                put_name(entries, image, reference);
            }
            for (subject, referrer) in referrers {
                put_referrer(entries, *subject, referrer);
            }
        })
    }

    /// Note that a manifest, whose blobs are here and leased, refers to an image.
    ///
    /// # Errors
    /// The index can't be written.
    pub fn attach(
        &self,
        _lease: &Lease,
        subject: Digest,
        referrer: &Descriptor,
    ) -> Result<(), StoreError> {
        self.change(|entries| put_referrer(entries, subject, referrer))
    }

    /// Note that an image was used now.
    ///
    /// # Errors
    /// The index can't be read or written.
    pub(crate) fn used(&self, digest: Digest) -> Result<(), StoreError> {
        let now = SystemTime::now();
        let images = self.images()?;
        let image = images.iter().find(|image| image.digest() == digest);
        let recent = |image: &StoredImage| {
            now.duration_since(image.used).is_ok_and(|since| since < USE_STEP)
        };
        if image.is_none_or(recent) {
            return Ok(());
        }
        self.change(|entries| {
            for entry in entries.iter_mut().filter(|entry| entry.digest == digest) {
                entry.annotations.insert(USED.to_owned(), seconds(now));
            }
        })
    }

    /// Repositories at a registry that have this blob, as far as the store knows: their names
    /// here say where they came from.
    pub(crate) fn repositories_with(&self, registry: &str, blob: Digest) -> Vec<String> {
        let (Ok(images), Ok(layout)) = (self.images(), self.layout()) else { return Vec::new() };
        let mut repositories = Vec::new();
        for image in images {
            let has = walk::parts(&layout, &image.descriptor)
                .is_ok_and(|parts| parts.blobs.contains_key(&blob));
            let names = image.names.iter().filter_map(|name| name.parse::<Reference>().ok());
            let names = names.filter(|name| has && name.registry() == registry);
            repositories.extend(names.map(|name| name.repository().to_owned()));
        }
        repositories.sort();
        repositories.dedup();
        repositories
    }

    /// Every entry, as it is.
    pub(crate) fn entries(&self) -> Result<Vec<Descriptor>, StoreError> {
        let damaged = |source| StoreError::Damaged { root: self.root.clone(), source };
        let index: Result<Index, LayoutError> = Layout::open(&self.root)?.index();
        Ok(index.map_err(damaged)?.manifests)
    }

    /// Change the index under the lock.
    pub(crate) fn change(
        &self,
        change: impl FnOnce(&mut Vec<Descriptor>),
    ) -> Result<(), StoreError> {
        let _guard = self.lock()?;
        let before = self.entries()?;
        let mut entries = before.clone();
        change(&mut entries);
        drop_orphans(&before, &mut entries);
        self.write_index(entries)
    }

    /// Replace the index. The caller holds the lock.
    pub(super) fn write_index(&self, manifests: Vec<Descriptor>) -> Result<(), StoreError> {
        let index = Index {
            annotations: Annotations::new(),
            manifests,
            media_type: Some(oci::INDEX.to_owned()),
            schema_version: 2,
        };
        let bytes = serde_json::to_vec(&index).unwrap_or_default();
        debug_assert!(!bytes.is_empty(), "an index has text keys only");
        // One that could not be read again would take all images with it.
        if bytes.len() > MAX_INDEX {
            return Err(StoreError::IndexFull { root: self.root.clone() });
        }
        self.write_whole(&self.root.join(oci::INDEX_FILE), &bytes)
    }
}

fn put_name(entries: &mut Vec<Descriptor>, image: &Descriptor, reference: &Reference) {
    let name = reference.to_string();
    entries.retain(|entry| entry.annotations.get(oci::IMAGE_NAME) != Some(&name));
    // An entry without a name has served its turn.
    entries.retain(|entry| {
        entry.digest != image.digest || entry.annotations.contains_key(oci::IMAGE_NAME)
    });
    let mut entry = plain(image);
    let now = seconds(SystemTime::now());
    entry.annotations.insert(oci::IMAGE_NAME.to_owned(), name);
    if let Some(tag) = reference.tag() {
        entry.annotations.insert(oci::REF_NAME.to_owned(), tag.to_owned());
    }
    entry.annotations.insert(STORED.to_owned(), now.clone());
    entry.annotations.insert(USED.to_owned(), now);
    entries.push(entry);
}

fn put_referrer(entries: &mut Vec<Descriptor>, subject: Digest, referrer: &Descriptor) {
    entries.retain(|entry| entry.digest != referrer.digest);
    let mut entry = referrer.clone();
    entry.annotations.insert(SUBJECT.to_owned(), subject.to_string());
    entries.push(entry);
}

/// What an entry refers to.
pub(super) fn subject(entry: &Descriptor) -> Option<Digest> {
    entry.annotations.get(SUBJECT)?.parse().ok()
}

/// Leave out what refers to an image that was here and is no more: nobody can ask for either. What
/// refers to an image that never was here, for instance one of containerd's, stays.
pub(super) fn drop_orphans(before: &[Descriptor], entries: &mut Vec<Descriptor>) {
    let images = |entries: &[Descriptor]| -> BTreeSet<Digest> {
        let own = entries.iter().filter(|entry| subject(entry).is_none());
        own.map(|entry| entry.digest).collect()
    };
    let (had, has) = (images(before), images(entries));
    let gone = |digest: &Digest| had.contains(digest) && !has.contains(digest);
    entries.retain(|entry| !subject(entry).is_some_and(|subject| gone(&subject)));
}

/// A descriptor without the store's notes.
pub(super) fn plain(entry: &Descriptor) -> Descriptor {
    let mut plain = entry.clone();
    for note in [STORED, USED, SUBJECT, oci::IMAGE_NAME, oci::REF_NAME] {
        plain.annotations.remove(note);
    }
    plain
}

/// When the image of an entry was last used.
pub(super) fn last_use(entry: &Descriptor) -> SystemTime {
    time(entry, USED)
}

fn time(entry: &Descriptor, key: &str) -> SystemTime {
    let seconds = entry.annotations.get(key).and_then(|text| text.parse::<u32>().ok());
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.unwrap_or_default().into())
}

fn seconds(time: SystemTime) -> String {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs().to_string()
}
