//! From a layout, such as the store, into a registry.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use wick_package::oci::{self, Descriptor};
use wick_package::{Blob, Digest, Layout, Reference};

use crate::api::{Begun, Document, Repository};
use crate::client::Registry;
use crate::content::{Origin, Upload};
use crate::error::RegistryError;
use crate::progress::Progress;
use crate::store::{Store, parts};

/// Places of the same registry that a blob is tried to be mounted from.
const MAX_MOUNTS: usize = 3;

/// What was pushed.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Pushed {
    pub reference: String,
    pub digest: Digest,
    /// Bytes that went over the wire.
    pub moved: u64,
    /// Bytes that the registry had, or took from another repository of its own.
    pub kept: u64,
    /// Artifacts that refer to it and went with it.
    pub referrers: usize,
}

/// What became of one blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    Moved(u64),
    Kept(u64),
}

// === impl Pushed ===

impl Pushed {
    fn add(&mut self, sent: &[Sent]) {
        for one in sent {
            match one {
                Sent::Moved(bytes) => self.moved += bytes,
                Sent::Kept(bytes) => self.kept += bytes,
            }
        }
    }
}

// === impl Registry ===

impl Registry {
    /// Push an image of the store, and what refers to it.
    ///
    /// # Errors
    /// The registry refuses or fails, or the image is not here as a whole.
    pub async fn push_stored(
        &self,
        store: &Store,
        image: &Descriptor,
        reference: &Reference,
        progress: Arc<dyn Progress>,
    ) -> Result<Pushed, RegistryError> {
        let lease = store.lease()?;
        lease.protect_image(image)?;
        let layout = store.layout()?;
        let mut pushed = self.push(&layout, image, reference, Some(store), &progress).await?;
        let at = self.repository(reference)?;
        for referrer in store.referrers(image.digest)? {
            lease.protect_image(&referrer)?;
            let parts = parts(&layout, &referrer)?;
            let sent = self.send_leaves(&at, &layout, &parts.leaves, None, &progress).await?;
            pushed.add(&sent);
            let bytes = Bytes::from(layout.document(&referrer, "manifest")?);
            pushed.moved += bytes.len() as u64;
            let document = Document { descriptor: referrer, bytes };
            self.put_beside(&at, image.digest, &document, &progress).await?;
            pushed.referrers += 1;
        }
        Ok(pushed)
    }

    /// Push the only image of a layout, a folder or its tar.
    ///
    /// # Errors
    /// The registry refuses or fails, or the layout is damaged or has several images.
    pub async fn push_layout(
        &self,
        layout: &Path,
        reference: &Reference,
        progress: Arc<dyn Progress>,
    ) -> Result<Pushed, RegistryError> {
        let layout = Layout::open(layout)?;
        let image = layout.only_image()?;
        self.push(&layout, &image, reference, None, &progress).await
    }

    async fn push(
        &self,
        layout: &Layout,
        image: &Descriptor,
        reference: &Reference,
        store: Option<&Store>,
        progress: &Arc<dyn Progress>,
    ) -> Result<Pushed, RegistryError> {
        let parts = parts(layout, image)?;
        if let Some(absent) = parts.absent.first() {
            let platform = absent.platform.as_ref().map(ToString::to_string);
            let platform = platform.unwrap_or_else(|| absent.digest.to_string());
            return Err(RegistryError::Incomplete { platform });
        }
        let at = self.repository(reference)?;
        progress.planned(parts.blobs.values().sum());
        let mut pushed = Pushed {
            reference: reference.to_string(),
            digest: image.digest,
            moved: 0,
            kept: 0,
            referrers: 0,
        };
        pushed.add(&self.send_leaves(&at, layout, &parts.leaves, store, progress).await?);
        for descriptor in parts.documents {
            let what =
                if oci::is_index(&descriptor.media_type) { "image index" } else { "manifest" };
            let bytes = Bytes::from(layout.document(&descriptor, what)?);
            let size = descriptor.size;
            // The image itself gets the tag, last of all: until then nobody sees a half of it.
            let top = descriptor.digest == image.digest;
            let digest = descriptor.digest.to_string();
            let selector = if top { reference.tag().unwrap_or(&digest) } else { &digest };
            let document = Document { descriptor, bytes };
            self.put_document(&at, selector, &document, progress).await?;
            progress.moved(size);
            pushed.moved += size;
        }
        Ok(pushed)
    }

    async fn send_leaves(
        &self,
        at: &Repository,
        layout: &Layout,
        leaves: &[Descriptor],
        store: Option<&Store>,
        progress: &Arc<dyn Progress>,
    ) -> Result<Vec<Sent>, RegistryError> {
        let parallel = self.settings().parallel.max(1);
        let blobs = leaves.iter().map(|leaf| Ok((leaf.clone(), layout.find(leaf, "blob")?)));
        let mut blobs = blobs.collect::<Result<Vec<(Descriptor, Blob)>, RegistryError>>()?;
        blobs.sort_by_key(|(leaf, _)| std::cmp::Reverse(leaf.size));
        let sends = blobs.into_iter().map(|(leaf, blob)| async move {
            let mounts = match store {
                Some(store) => store.repositories_with(&at.registry, leaf.digest),
                None => Vec::new(),
            };
            self.send(at, &leaf, &mounts, || Origin::File(blob.clone()), progress).await
        });
        stream::iter(sends).buffer_unordered(parallel).try_collect().await
    }

    /// Have a blob at a registry: it may be there, or in another repository there, or it is sent.
    pub(crate) async fn send(
        &self,
        at: &Repository,
        blob: &Descriptor,
        mounts: &[String],
        origin: impl Fn() -> Origin,
        progress: &Arc<dyn Progress>,
    ) -> Result<Sent, RegistryError> {
        if self.has_blob(at, blob.digest, progress).await? {
            progress.kept(blob.size);
            return Ok(Sent::Kept(blob.size));
        }
        let mut failures = 0;
        let mounts = mounts.iter().filter(|from| **from != at.name).take(MAX_MOUNTS);
        let mut mounts = mounts.collect::<Vec<_>>().into_iter();
        loop {
            let from = mounts.next().map(String::as_str);
            let begun = self.begin(at, blob.digest, from, progress).await;
            let place = match begun {
                Ok(Begun::Mounted) => {
                    progress.kept(blob.size);
                    return Ok(Sent::Kept(blob.size));
                }
                // Another place may do; the upload that was begun instead expires by itself.
                Ok(Begun::Upload(_)) if mounts.len() > 0 => continue,
                Ok(Begun::Upload(place)) => place,
                // Who may not read there need not mount from there.
                Err(_) if from.is_some() => continue,
                Err(error) => return Err(error),
            };
            let upload = Arc::new(Upload::new(origin(), blob.size, progress.clone()));
            match self.upload(at, blob.digest, place, upload.clone()).await {
                Ok(()) => return Ok(Sent::Moved(blob.size)),
                Err(error) => {
                    upload.undo();
                    failures += 1;
                    self.transport.pause(failures, error, progress).await?;
                }
            }
        }
    }

    /// Have a blob that is in memory at a registry.
    pub(crate) async fn put_small(
        &self,
        at: &Repository,
        blob: &Descriptor,
        bytes: &Bytes,
        progress: &Arc<dyn Progress>,
    ) -> Result<Sent, RegistryError> {
        self.send(at, blob, &[], || Origin::Memory(bytes.clone()), progress).await
    }
}
