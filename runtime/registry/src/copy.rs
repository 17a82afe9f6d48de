//! From one registry to another, without the disk. Everything moves: all platforms, and what refers
//! to the image.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use reqwest::StatusCode;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc::Sender;
use wick_package::oci::Descriptor;
use wick_package::{Digest, Reference};

use crate::api::{Document, Repository};
use crate::client::Registry;
use crate::content::Origin;
use crate::error::RegistryError;
use crate::images::{self, Platforms};
use crate::progress::Progress;
use crate::push::Sent;

/// Artifacts that refer to an image and are copied with it. One with more is not copied: a part of
/// its signatures would pass for all of them.
const MAX_REFERRERS: usize = 256;

/// What was copied.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Copied {
    pub from: String,
    pub to: String,
    pub digest: Digest,
    /// Bytes that went through this machine.
    pub moved: u64,
    /// Bytes that the registry had, or took from another repository of its own.
    pub kept: u64,
    pub referrers: usize,
}

// === impl Registry ===

impl Registry {
    /// Copy an image with all its platforms and what refers to it.
    ///
    /// # Errors
    /// Either registry refuses, fails or lies.
    pub async fn copy(
        &self,
        from: &Reference,
        to: &Reference,
        progress: Arc<dyn Progress>,
    ) -> Result<Copied, RegistryError> {
        let (source, root) = self.resolve(from, &progress).await?;
        let image = root.descriptor.clone();
        let target = self.repository(to)?;
        let mut copied = Copied {
            from: from.to_string(),
            to: to.to_string(),
            digest: image.digest,
            moved: 0,
            kept: 0,
            referrers: 0,
        };
        let digest = image.digest.to_string();
        let tag = to.tag().unwrap_or(&digest).to_owned();
        let way = Way { source, target, reference: from.clone() };
        let referrers = self.referrers_at(&way.source, image.digest, &progress).await?;
        images::limit(from, "referrers", referrers.len() as u64, MAX_REFERRERS as u64)?;
        self.copy_tree(&way, root, Some(&tag), &mut copied, &progress).await?;
        for referrer in referrers {
            let selector = referrer.digest.to_string();
            let document = match self.document(&way.source, &selector, &progress).await {
                Ok(document) => document,
                // The list names what was deleted.
                Err(RegistryError::NotFound { .. }) => continue,
                Err(error) => return Err(error),
            };
            let Document { descriptor, bytes } = document.clone();
            self.copy_tree(&way, document, None, &mut copied, &progress).await?;
            let descriptor = Descriptor { size: descriptor.size, ..referrer };
            let document = Document { descriptor, bytes };
            self.put_beside(&way.target, image.digest, &document, &progress).await?;
            copied.referrers += 1;
        }
        Ok(copied)
    }

    async fn copy_tree(
        &self,
        way: &Way,
        root: Document,
        tag: Option<&str>,
        copied: &mut Copied,
        progress: &Arc<dyn Progress>,
    ) -> Result<(), RegistryError> {
        let Way { source, target, reference } = way;
        let top = root.descriptor.digest;
        let tree = self.tree(source, reference, root, Platforms::All, progress).await?;
        progress.planned(tree.bytes());
        let parallel = self.settings().parallel.max(1);
        // The registry that has it may take it from itself.
        let mounts = match source.origin == target.origin {
            true => vec![source.name.clone()],
            false => Vec::new(),
        };
        let mounts = &mounts;
        // Each owned by its future, which may then move between threads.
        let sends = tree.leaves.iter().cloned().map(|leaf| async move {
            let origin = || Origin::Registry {
                registry: self.clone(),
                from: Box::new(source.clone()),
                blob: Box::new(leaf.clone()),
            };
            self.send(target, &leaf, mounts, origin, progress).await
        });
        let sent: Vec<Sent> = stream::iter(sends).buffer_unordered(parallel).try_collect().await?;
        for one in sent {
            match one {
                Sent::Moved(bytes) => copied.moved += bytes,
                Sent::Kept(bytes) => copied.kept += bytes,
            }
        }
        for document in &tree.documents {
            let digest = document.descriptor.digest;
            let selector = match tag {
                Some(tag) if digest == top => tag.to_owned(),
                _ => digest.to_string(),
            };
            self.put_document(target, &selector, document, progress).await?;
            progress.moved(document.descriptor.size);
            copied.moved += document.descriptor.size;
        }
        Ok(())
    }

    /// Hand a blob of a registry on, chunk by chunk, hashed on its way. The last chunk is held
    /// back until it is known that all of it is right, so that nothing wrong arrives whole.
    pub(crate) async fn relay(
        &self,
        from: &Repository,
        blob: &Descriptor,
        to: &Sender<std::io::Result<Bytes>>,
    ) -> Result<(), RegistryError> {
        let what = format!("blob {} of {}", blob.digest.short(), from.name);
        let mut response = self.blob_once(from, blob, 0).await?;
        if response.status() == StatusCode::PARTIAL_CONTENT {
            return Err(from.odd(&what, "a part, and all of it was asked for"));
        }
        let mut hasher = Sha256::new();
        let mut held: Option<Bytes> = None;
        while let Some(chunk) = self.transport.chunk(&mut response, &what).await? {
            hasher.update(&chunk);
            if let Some(chunk) = held.replace(chunk)
                && to.send(Ok(chunk)).await.is_err()
            {
                // Nobody sends any more.
                return Ok(());
            }
        }
        let (want, got) = (blob.digest, Digest::from_hasher(hasher));
        if want != got {
            return Err(RegistryError::Digest { host: from.host(), what, want, got });
        }
        if let Some(chunk) = held {
            drop(to.send(Ok(chunk)).await);
        }
        Ok(())
    }
}

/// From where to where.
struct Way {
    source: Repository,
    target: Repository,
    reference: Reference,
}
