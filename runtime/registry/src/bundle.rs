//! Images of the store as one file: the tar of a layout with all of them, each blob once.
//!
//! ```text
//!  index.json ─┬─ image, with its name          what containerd makes an image of
//!              ├─ image, …
//!              ├─ artifact that refers to one   no name: containerd passes it over
//!              └─ annotation: digest of a policy, which is a blob
//! ```
//!
//! The same images give the same bytes: entries and blobs are sorted, and nothing of the store's own
//! notes gets in. What a signature or a policy says is not known here.

use std::collections::BTreeMap;
use std::path::Path;

use wick_package::oci::{self, Annotations, Descriptor, Index};
use wick_package::pack::{Archive, PackError};
use wick_package::{Blob, Digest, Layout, LayoutError, Reason, Reference};

use crate::progress::Progress;
use crate::referrers::MAX_TYPE;
use crate::store::{Lease, Parts, Store, StoreError, parts};

/// On the index of a bundle: the digest of the policy that came with it.
pub(crate) const POLICY: &str = "dev.wick.policy";

/// The type of an artifact that does not say what it is.
const UNKNOWN_TYPE: &str = "application/octet-stream";

/// Images that go into one file, all of them here.
#[derive(Debug)]
pub struct Bundle {
    images: Vec<Bundled>,
    entries: Vec<Descriptor>,
    blobs: BTreeMap<Digest, Blob>,
    policy: Option<String>,
    /// Keeps garbage collection from the blobs.
    _lease: Lease,
}

/// An image in a bundle.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Bundled {
    pub name: String,
    pub digest: Digest,
    /// Bytes of all its blobs, also of those that it shares with others.
    pub size: u64,
    /// Artifacts that refer to it, for instance signatures.
    pub referrers: usize,
    /// Platforms of its index that are not there.
    pub absent: Vec<String>,
}

/// A bundle that was not written.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Write(#[from] PackError),
}

impl Reason for BundleError {
    fn code(&self) -> &'static str {
        match self {
            Self::Store(error) => error.code(),
            Self::Write(error) => error.code(),
        }
    }
}

// === impl Bundle ===

impl Bundle {
    /// Find all that belongs to these images, and keep it. The bytes are not read yet.
    ///
    /// # Errors
    /// Something of an image is missing, or the store is damaged.
    pub fn plan(
        store: &Store,
        images: &[(Reference, Descriptor)],
        policy: Option<String>,
    ) -> Result<Self, StoreError> {
        let mut images: Vec<_> = images.iter().map(|(name, it)| (name.to_string(), it)).collect();
        images.sort_by(|(one, _), (other, _)| one.cmp(other));
        images.dedup_by(|(one, _), (other, _)| one == other);
        let (layout, lease) = (store.layout()?, store.lease()?);
        let mut blobs = BTreeMap::new();
        let (mut all, mut entries, mut artifacts) = (Vec::new(), Vec::new(), BTreeMap::new());
        for (name, image) in images {
            lease.protect_image(image)?;
            let found = gather(store, &layout, image, &mut blobs)?;
            let referrers = store.referrers(image.digest)?;
            for referrer in &referrers {
                lease.protect_image(referrer)?;
                gather(store, &layout, referrer, &mut blobs)?;
                let entry = artifact(&layout, referrer).map_err(|error| damaged(store, error))?;
                artifacts.insert(entry.digest, entry);
            }
            entries.push(named(&name, image));
            let absent = found.absent.iter().filter_map(|it| it.platform.as_ref());
            let absent = absent.filter(|it| it.os != "unknown").map(ToString::to_string).collect();
            let size = size(&found);
            let (digest, referrers) = (image.digest, referrers.len());
            all.push(Bundled { name, digest, size, referrers, absent });
        }
        entries.extend(artifacts.into_values());
        Ok(Self { images: all, entries, blobs, policy, _lease: lease })
    }

    pub fn images(&self) -> &[Bundled] {
        &self.images
    }

    /// Bytes of all blobs.
    pub fn size(&self) -> u64 {
        let policy = self.policy.as_ref().map_or(0, String::len) as u64;
        self.blobs.values().map(|blob| blob.len).sum::<u64>() + policy
    }

    /// Write it. Gives the digest of its index, which holds for all that is in it.
    ///
    /// # Errors
    /// The disk is full, a blob is damaged, or something else lies at `out`. Nothing is left
    /// behind.
    pub fn write(&self, out: &Path, progress: &dyn Progress) -> Result<Digest, BundleError> {
        let policy = usize::from(self.policy.is_some());
        let mut archive = Archive::create(out, self.blobs.len() + policy)?;
        progress.planned(self.size());
        for (digest, blob) in &self.blobs {
            archive.blob(blob, *digest, &mut |bytes| progress.moved(bytes))?;
        }
        let mut annotations = Annotations::new();
        if let Some(policy) = &self.policy {
            let digest = archive.bytes(policy.as_bytes())?;
            annotations.insert(POLICY.to_owned(), digest.to_string());
            progress.moved(policy.len() as u64);
        }
        let (manifests, media_type) = (self.entries.clone(), Some(oci::INDEX.to_owned()));
        let index = Index { annotations, manifests, media_type, schema_version: 2 };
        Ok(archive.finish(&index)?)
    }
}

/// Take an image apart, and note where its blobs are.
fn gather(
    store: &Store,
    layout: &Layout,
    image: &Descriptor,
    blobs: &mut BTreeMap<Digest, Blob>,
) -> Result<Parts, StoreError> {
    let mut gather = || -> Result<Parts, LayoutError> {
        let parts = parts(layout, image)?;
        for part in parts.documents.iter().chain(&parts.leaves) {
            blobs.insert(part.digest, layout.find(part, "blob")?);
        }
        Ok(parts)
    };
    gather().map_err(|error| damaged(store, error))
}

fn damaged(store: &Store, source: LayoutError) -> StoreError {
    StoreError::Damaged { root: store.root().to_owned(), source }
}

/// Bytes of all of an image that is here.
pub(crate) fn size(parts: &Parts) -> u64 {
    parts.documents.iter().chain(&parts.leaves).map(|part| part.size).sum()
}

/// The entry of an image. containerd takes the whole name, everybody else the tag.
fn named(name: &str, image: &Descriptor) -> Descriptor {
    let mut entry = Descriptor::new(&image.media_type, image.digest, image.size);
    entry.annotations.insert(oci::IMAGE_NAME.to_owned(), name.to_owned());
    let tag = name.parse::<Reference>().ok();
    if let Some(tag) = tag.as_ref().and_then(Reference::tag) {
        entry.annotations.insert(oci::REF_NAME.to_owned(), tag.to_owned());
    }
    entry
}

/// The entry of an artifact. Its type is that of its manifest, as a registry lists it: what the
/// store noted depends on how the artifact came.
fn artifact(layout: &Layout, referrer: &Descriptor) -> Result<Descriptor, LayoutError> {
    let manifest: oci::Image = layout.json(referrer, "manifest")?;
    let kind = manifest.artifact_type.unwrap_or(manifest.config.media_type);
    let kind = Some(kind).filter(|kind| kind.len() <= MAX_TYPE && !kind.is_empty());
    let artifact_type = Some(kind.unwrap_or_else(|| UNKNOWN_TYPE.to_owned()));
    let entry = Descriptor::new(&referrer.media_type, referrer.digest, referrer.size);
    Ok(Descriptor { artifact_type, ..entry })
}
