//! Deletes from the store: an image that somebody removes, or what garbage collection finds. Acts
//! by the plan of [`super::gc`], under the store's lock.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::Path;
use std::time::SystemTime;

use wick_package::oci::{self, Descriptor};
use wick_package::{Digest, LayoutError, error_text};

use super::gc::{self, Facts, Image, Limits, Plan};
use super::index::subject;
use super::lease::absent;
use super::{GRACE, INGEST, Store, StoreError, StoredImage, store_io, walk};

/// What was deleted, or would be.
#[derive(Debug, Default, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Swept {
    /// Names of images, or digests of those without a name.
    pub images: Vec<String>,
    pub blobs: usize,
    /// Blobs that were on their way.
    pub partials: usize,
    pub bytes: u64,
    /// Images, and what refers to some, that can't be read as they should. They stay with all that
    /// they may need.
    pub damaged: Vec<Damaged>,
}

/// An image that can't be taken apart.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Damaged {
    /// Its name, or its digest where it has none.
    pub image: String,
    pub why: String,
}

/// What to do first: the index loses entries before blobs go.
struct Removal<'a> {
    entries: &'a dyn Fn(&Descriptor) -> bool,
    released: BTreeSet<Digest>,
}

// === impl Store ===

impl Store {
    /// Collect garbage.
    ///
    /// # Errors
    /// The store is damaged, or can't be written.
    pub fn gc(&self, limits: &Limits, dry_run: bool) -> Result<Swept, StoreError> {
        self.sweep(limits, dry_run, &Removal { entries: &|_| false, released: BTreeSet::new() })
    }

    /// Remove a name, or with its digest an image and all its names. Blobs that nothing refers
    /// to any more go at once, unless they are in use.
    ///
    /// # Errors
    /// There is no such image, or the store is damaged.
    pub fn remove(&self, wanted: &str, dry_run: bool) -> Result<Swept, StoreError> {
        let image = self.find(wanted)?;
        let name = wanted.parse::<wick_package::Reference>().map(|name| name.to_string());
        let name = name.ok().filter(|name| image.names.contains(name));
        let last = name.is_none() || image.names.len() == 1;
        let released = match last {
            true => self.all_of(&image)?,
            false => BTreeSet::new(),
        };
        let digest = image.digest();
        let entries = |entry: &Descriptor| match &name {
            Some(name) if !last => entry.annotations.get(oci::IMAGE_NAME) == Some(name),
            _ => entry.digest == digest || subject(entry) == Some(digest),
        };
        let limits = Limits { unused: None, bytes: None, grace: GRACE };
        let mut swept = self.sweep(&limits, dry_run, &Removal { entries: &entries, released })?;
        swept.images = match (name, last) {
            (Some(name), false) => vec![name],
            _ if image.names.is_empty() => vec![digest.to_string()],
            _ => image.names,
        };
        Ok(swept)
    }

    /// Everything that is there only because of an image: its parts, and those of its referrers.
    fn all_of(&self, image: &StoredImage) -> Result<BTreeSet<Digest>, StoreError> {
        let layout = self.layout()?;
        let roots = std::iter::once(&image.descriptor).chain(&image.referrers);
        let mut all = BTreeSet::new();
        for root in roots {
            // A damaged image must be removable, with what can be read of it.
            all.extend(walk::kept(&layout, root).0);
        }
        Ok(all)
    }

    fn sweep(
        &self,
        limits: &Limits,
        dry_run: bool,
        removal: &Removal<'_>,
    ) -> Result<Swept, StoreError> {
        let _guard = self.lock()?;
        let mut entries = self.entries()?;
        let before = entries.len();
        entries.retain(|entry| !(removal.entries)(entry));
        let (facts, damaged) = self.facts(&entries, removal.released.clone())?;
        let plan = gc::plan(&facts, limits);
        let swept = Swept { damaged, ..report(&plan, &entries) };
        if dry_run {
            return Ok(swept);
        }
        entries.retain(|entry| {
            let goes = |digest: &Digest| plan.images.contains(digest);
            !goes(&entry.digest) && !subject(entry).is_some_and(|digest| goes(&digest))
        });
        if entries.len() != before {
            // First nobody refers to them, then they go: a kill between the two costs space only.
            self.write_index(entries)?;
        }
        for digest in &plan.blobs {
            let path = self.blob_path(*digest);
            fs::remove_file(&path).or_else(absent).map_err(|source| store_io(&path, source))?;
        }
        for name in &plan.partials {
            self.remove_partial(name)?;
        }
        Ok(swept)
    }

    fn facts(
        &self,
        entries: &[Descriptor],
        released: BTreeSet<Digest>,
    ) -> Result<(Facts, Vec<Damaged>), StoreError> {
        let layout = self.layout()?;
        // One damaged image must not keep all garbage for ever.
        let mut damaged = Vec::new();
        let mut kept = |entry: &Descriptor| {
            let (blobs, error) = walk::kept(&layout, entry);
            damaged.extend(error.map(|error| Damaged::new(entry, &error)));
            blobs
        };
        let mut pinned = self.leased()?;
        let mut images: BTreeMap<Digest, Image> = BTreeMap::new();
        let own = |entry: &&Descriptor| subject(entry).is_none();
        for entry in entries.iter().filter(own) {
            let used = super::index::last_use(entry);
            match images.get_mut(&entry.digest) {
                Some(image) => image.used = image.used.max(used),
                None => {
                    let blobs = kept(entry);
                    images.insert(entry.digest, Image { digest: entry.digest, used, blobs });
                }
            }
        }
        for entry in entries {
            let Some(subject) = subject(entry) else { continue };
            let blobs = kept(entry);
            match images.get_mut(&subject) {
                Some(image) => image.blobs.extend(blobs),
                // It refers to what is kept elsewhere, for instance in containerd.
                None => pinned.extend(blobs),
            }
        }
        let blobs = files(&self.root.join("blobs/sha256"))?;
        let blobs = blobs.into_iter().filter_map(|(name, file)| {
            let digest: Digest = format!("sha256:{name}").parse().ok()?;
            Some((digest, file))
        });
        let facts = Facts {
            now: SystemTime::now(),
            images: images.into_values().collect(),
            blobs: blobs.collect(),
            partials: files(&self.root.join(INGEST))?,
            pinned,
            released,
        };
        Ok((facts, damaged))
    }

    /// Remove what is left of a download or a push, unless somebody goes on with it.
    fn remove_partial(&self, name: &str) -> Result<(), StoreError> {
        let path = self.root.join(INGEST).join(name);
        let Ok(file) = File::open(&path) else { return Ok(()) };
        if file.try_lock().is_err() {
            return Ok(());
        }
        let removed = match path.is_dir() {
            true => fs::remove_dir_all(&path),
            false => fs::remove_file(&path),
        };
        removed.or_else(absent).map_err(|source| store_io(&path, source))
    }
}

// === impl Damaged ===

impl Damaged {
    fn new(entry: &Descriptor, error: &LayoutError) -> Self {
        let name = entry.annotations.get(oci::IMAGE_NAME).cloned();
        let image = name.unwrap_or_else(|| entry.digest.to_string());
        Self { image, why: error_text(error) }
    }
}

fn report(plan: &Plan, entries: &[Descriptor]) -> Swept {
    let mut images = Vec::new();
    for digest in &plan.images {
        let names = entries.iter().filter(|entry| entry.digest == *digest);
        let names: Vec<_> =
            names.filter_map(|entry| entry.annotations.get(oci::IMAGE_NAME).cloned()).collect();
        match names.is_empty() {
            true => images.push(digest.to_string()),
            false => images.extend(names),
        }
    }
    let (blobs, partials) = (plan.blobs.len(), plan.partials.len());
    Swept { images, blobs, partials, bytes: plan.bytes, damaged: Vec::new() }
}

/// Files of a folder, by name. A folder in it is what a push has packed; it counts as empty.
fn files(folder: &Path) -> Result<BTreeMap<String, gc::File>, StoreError> {
    let io = |source| store_io(folder, source);
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        // It may go while we look.
        let Ok(meta) = entry.metadata() else { continue };
        let size = if meta.is_file() { meta.len() } else { 0 };
        let modified = meta.modified().map_err(io)?;
        files.insert(name, gc::File { size, modified });
    }
    Ok(files)
}
