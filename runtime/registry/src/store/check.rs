//! Finds what is wrong with a store that somebody damaged, and mends it: what is damaged goes, so
//! that it is pulled again; what is whole stays.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use wick_package::oci::{self, Descriptor, Image, Index};
use wick_package::{Blob, Digest, error_text};

use super::index::{drop_orphans, subject};
use super::{Store, StoreError, store_io, walk};
use crate::progress::Progress;

/// Longest blob that may be a document, when images are looked for among blobs.
const MAX_DOCUMENT: u64 = 4 << 20;

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case", tag = "fault")]
pub enum Fault {
    /// `index.json` or `oci-layout` can't be read.
    Index { why: String },
    /// A blob has other bytes than its name says.
    Blob { digest: Digest, got: Digest },
    /// A file among the blobs that is none.
    Stray { path: PathBuf },
    /// An image that can't be opened.
    Image { name: String, why: String },
}

/// What a check found.
#[derive(Debug, Default, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    pub images: usize,
    pub blobs: usize,
    pub bytes: u64,
    pub faults: Vec<Fault>,
}

// === impl Store ===

impl Store {
    /// Read every byte and compare.
    ///
    /// # Errors
    /// The disk fails.
    pub fn check(&self, progress: &dyn Progress) -> Result<Report, StoreError> {
        let mut report = Report::default();
        self.check_blobs(&mut report, progress)?;
        let broken: BTreeSet<_> = report.faults.iter().filter_map(broken_blob).collect();
        match self.entries() {
            Ok(entries) => self.check_images(&entries, &broken, &mut report),
            Err(error) => report.faults.push(Fault::Index { why: error_text(&error) }),
        }
        Ok(report)
    }

    /// Check, and remove what is damaged: blobs, and images that miss something. An unreadable
    /// `index.json` is put aside and made anew, from the images that are whole; their names are
    /// lost.
    ///
    /// # Errors
    /// The disk fails.
    pub fn repair(&self, progress: &dyn Progress) -> Result<Report, StoreError> {
        let report = self.check(progress)?;
        let _guard = self.lock()?;
        for digest in report.faults.iter().filter_map(broken_blob) {
            let path = self.blob_path(digest);
            // Somebody may have mended it meanwhile.
            if hash(self, digest)?.is_some_and(|got| got != digest) {
                fs::remove_file(&path).map_err(|source| store_io(&path, source))?;
            }
        }
        let entries = match self.entries() {
            Ok(entries) => entries,
            Err(_) => self.rebuild()?,
        };
        let whole = |entry: &Descriptor| self.is_complete(entry);
        let mut kept: Vec<_> = entries.iter().filter(|entry| whole(entry)).cloned().collect();
        drop_orphans(&entries, &mut kept);
        if kept.len() != entries.len()
            || report.faults.iter().any(|f| matches!(f, Fault::Index { .. }))
        {
            self.write_index(kept)?;
        }
        Ok(report)
    }

    /// Whether all of an image is here that this machine needs, by name and length.
    pub fn is_complete(&self, image: &Descriptor) -> bool {
        let parts = self.layout().ok().and_then(|layout| walk::parts(&layout, image).ok());
        let Some(parts) = parts else { return false };
        let ours = Some(oci::Platform::host());
        parts.leaves.iter().all(|leaf| self.has(leaf))
            && !parts.documents.is_empty()
            && parts.absent.iter().all(|absent| absent.platform != ours)
    }

    /// Bytes of all that is here of an image.
    ///
    /// # Errors
    /// Its documents are damaged, or not here.
    pub fn size(&self, image: &Descriptor) -> Result<u64, StoreError> {
        let damaged = |source| StoreError::Damaged { root: self.root().to_owned(), source };
        let parts = walk::parts(&self.layout()?, image).map_err(damaged)?;
        let here = |blob: &Descriptor| if self.has(blob) { blob.size } else { 0 };
        Ok(parts.leaves.iter().chain(&parts.documents).map(here).sum())
    }

    fn check_blobs(&self, report: &mut Report, progress: &dyn Progress) -> Result<(), StoreError> {
        let folder = self.root.join("blobs/sha256");
        let entries = fs::read_dir(&folder).map_err(|source| store_io(&folder, source))?;
        let mut found = BTreeMap::new();
        for entry in entries {
            let entry = entry.map_err(|source| store_io(&folder, source))?;
            let name = entry.file_name().into_string().unwrap_or_default();
            let file = entry.file_type().is_ok_and(|kind| kind.is_file());
            match format!("sha256:{name}").parse::<Digest>() {
                Ok(digest) if file => {
                    let size = entry.metadata().map(|meta| meta.len()).unwrap_or_default();
                    found.insert(digest, size);
                }
                _ => report.faults.push(Fault::Stray { path: entry.path() }),
            }
        }
        progress.planned(found.values().sum());
        for (digest, size) in found {
            // It may have been removed since.
            let Some(got) = hash(self, digest)? else { continue };
            if got != digest {
                report.faults.push(Fault::Blob { digest, got });
            }
            report.blobs += 1;
            report.bytes += size;
            progress.moved(size);
        }
        Ok(())
    }

    fn check_images(&self, entries: &[Descriptor], broken: &BTreeSet<Digest>, report: &mut Report) {
        for entry in entries {
            report.images += usize::from(subject(entry).is_none());
            if let Some(why) = self.why_incomplete(entry, broken) {
                let name = entry.annotations.get(oci::IMAGE_NAME);
                let name = name.cloned().unwrap_or_else(|| entry.digest.to_string());
                report.faults.push(Fault::Image { name, why });
            }
        }
    }

    fn why_incomplete(&self, image: &Descriptor, broken: &BTreeSet<Digest>) -> Option<String> {
        let layout = match self.layout() {
            Ok(layout) => layout,
            Err(error) => return Some(error_text(&error)),
        };
        let parts = match walk::parts(&layout, image) {
            Ok(parts) => parts,
            Err(error) => return Some(error_text(&error)),
        };
        let leaf = parts.leaves.iter().find_map(|leaf| layout.find(leaf, "blob").err());
        let damaged = parts.blobs.keys().find(|digest| broken.contains(digest));
        match (leaf, damaged) {
            (Some(error), _) => Some(error_text(&error)),
            (None, Some(digest)) => Some(format!("its blob {digest} is damaged")),
            (None, None) if self.is_complete(image) => None,
            (None, None) => Some("it has nothing for this machine".to_owned()),
        }
    }

    /// The entries of a store whose own files can't be read.
    fn rebuild(&self) -> Result<Vec<Descriptor>, StoreError> {
        // A layout opens if its marker is whole; then it is the index that is not.
        if self.layout().is_err() {
            self.put_aside(oci::LAYOUT_FILE)?;
            self.begin()?;
            if let Ok(entries) = self.entries() {
                return Ok(entries);
            }
        }
        let roots = self.roots()?;
        // Replaced by the caller at once: a kill finds the old one or the new one.
        self.copy_aside(oci::INDEX_FILE)?;
        Ok(roots)
    }

    /// Keep what can't be read for somebody to look at, until it is replaced.
    fn copy_aside(&self, name: &str) -> Result<(), StoreError> {
        let path = self.root.join(name);
        fs::copy(&path, self.aside(name))
            .map(drop)
            .or_else(super::lease::absent)
            .map_err(|source| store_io(&path, source))
    }

    /// Move what can't be read out of the way, for somebody to look at.
    fn put_aside(&self, name: &str) -> Result<(), StoreError> {
        let path = self.root.join(name);
        fs::rename(&path, self.aside(name))
            .or_else(super::lease::absent)
            .map_err(|source| store_io(&path, source))
    }

    fn aside(&self, name: &str) -> PathBuf {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.root.join(format!("{name}.damaged-{now}"))
    }

    /// Images among the blobs: documents that no other document refers to.
    fn roots(&self) -> Result<Vec<Descriptor>, StoreError> {
        let folder = self.root.join("blobs/sha256");
        let mut documents = BTreeMap::new();
        let mut inner = BTreeSet::new();
        for entry in fs::read_dir(&folder).map_err(|source| store_io(&folder, source))? {
            let path = entry.map_err(|source| store_io(&folder, source))?.path();
            let short = fs::metadata(&path).is_ok_and(|meta| meta.len() <= MAX_DOCUMENT);
            let Some(bytes) = short.then(|| fs::read(&path).ok()).flatten() else { continue };
            if let Ok(index) = serde_json::from_slice::<Index>(&bytes) {
                inner.extend(index.manifests.iter().map(|child| child.digest));
                documents.insert(Digest::of(&bytes), Descriptor::of(oci::INDEX, &bytes));
            } else if serde_json::from_slice::<Image>(&bytes).is_ok_and(|it| it.subject.is_none()) {
                documents.insert(Digest::of(&bytes), Descriptor::of(oci::MANIFEST, &bytes));
            }
        }
        documents.retain(|digest, _| !inner.contains(digest));
        Ok(documents.into_values().collect())
    }
}

fn broken_blob(fault: &Fault) -> Option<Digest> {
    match fault {
        Fault::Blob { digest, .. } => Some(*digest),
        _ => None,
    }
}

/// The digest that a blob really has; none if it is not here.
fn hash(store: &Store, digest: Digest) -> Result<Option<Digest>, StoreError> {
    let path = store.blob_path(digest);
    let Ok(meta) = fs::metadata(&path) else { return Ok(None) };
    let blob = Blob { path: path.clone(), offset: 0, len: meta.len(), digest: None };
    blob.hash().map(Some).map_err(|source| store_io(&path, source))
}
