//! What refers to an image: signatures, for instance. A registry lists it itself, or its clients
//! keep the list under a tag made of the digest (the distribution specification's fallback).
//!
//! What an artifact says is not read here.

use std::sync::Arc;

use bytes::Bytes;
use wick_package::oci::{self, Annotations, Descriptor, Image, Index};
use wick_package::signature::fallback_tag;
use wick_package::{Digest, Reference};

use crate::api::{Document, Repository};
use crate::client::Registry;
use crate::cosign;
use crate::download::blocking;
use crate::error::RegistryError;
use crate::progress::Progress;
use crate::store::{Lease, Store, StoreError};

/// Referrers of an image that are pulled, and the bytes of each. A signature has some thousand.
const MAX_REFERRERS: usize = 64;
const MAX_ARTIFACT: u64 = 4 << 20;

/// Blobs of an artifact: its config, and a layer for each signature.
const MAX_BLOBS: usize = 65;

/// Longest type of an artifact that is kept: a media type, which RFC 6838 bounds.
pub(crate) const MAX_TYPE: usize = 255;

/// Tries to change the list under a tag, which others may change at the same time.
const MAX_RACES: usize = 5;

/// The config of an artifact without one, by the image specification.
const EMPTY: &[u8] = b"{}";
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";

/// Something that refers to an image, to be attached to it.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// What it is, for instance `application/vnd.dev.wick.signature.v1`.
    pub artifact_type: String,
    pub annotations: Annotations,
    /// Its layers: media type, annotations, bytes.
    pub layers: Vec<(String, Annotations, Vec<u8>)>,
}

/// What came with an image.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Brought {
    pub(crate) count: usize,
    pub(crate) bytes: u64,
}

/// An artifact's documents and blobs, ready to go somewhere.
struct Ready {
    manifest: Document,
    blobs: Vec<(Descriptor, Bytes)>,
}

// === impl Artifact ===

impl Artifact {
    fn ready(&self, subject: Descriptor) -> Ready {
        let config = Descriptor::of(EMPTY_TYPE, EMPTY);
        let mut blobs = vec![(config.clone(), Bytes::from_static(EMPTY))];
        for (media_type, annotations, bytes) in &self.layers {
            let annotations = annotations.clone();
            let layer = Descriptor { annotations, ..Descriptor::of(media_type, bytes) };
            blobs.push((layer, bytes.clone().into()));
        }
        let image = Image {
            annotations: self.annotations.clone(),
            artifact_type: Some(self.artifact_type.clone()),
            config,
            layers: blobs[1..].iter().map(|(layer, _)| layer.clone()).collect(),
            media_type: Some(oci::MANIFEST.to_owned()),
            schema_version: 2,
            subject: Some(Descriptor::new(&subject.media_type, subject.digest, subject.size)),
        };
        let bytes = Bytes::from(serde_json::to_vec(&image).unwrap_or_default());
        let descriptor = Descriptor {
            annotations: self.annotations.clone(),
            artifact_type: Some(self.artifact_type.clone()),
            ..Descriptor::of(oci::MANIFEST, &bytes)
        };
        Ready { manifest: Document { descriptor, bytes }, blobs }
    }
}

// === impl Registry ===

impl Registry {
    /// What refers to an image at a registry.
    ///
    /// # Errors
    /// The registry can't be asked.
    pub async fn referrers(
        &self,
        reference: &Reference,
        image: Digest,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        let progress: Arc<dyn Progress> = Arc::new(());
        let at = self.repository(reference)?;
        self.referrers_at(&at, image, &progress).await
    }

    /// Get the manifest of an artifact that refers to an image.
    ///
    /// # Errors
    /// The registry fails or lies.
    pub async fn artifact(
        &self,
        reference: &Reference,
        artifact: &Descriptor,
    ) -> Result<Bytes, RegistryError> {
        let progress: Arc<dyn Progress> = Arc::new(());
        let at = self.repository(reference)?;
        Ok(self.document(&at, &artifact.digest.to_string(), &progress).await?.bytes)
    }

    /// Get a blob of an artifact. It must be small.
    ///
    /// # Errors
    /// The registry fails or lies.
    pub async fn artifact_blob(
        &self,
        reference: &Reference,
        blob: &Descriptor,
    ) -> Result<Bytes, RegistryError> {
        let progress: Arc<dyn Progress> = Arc::new(());
        self.small_blob(&self.repository(reference)?, blob, MAX_ARTIFACT, &progress).await
    }

    /// Attach an artifact to an image that is at the registry, and say what it became.
    ///
    /// # Errors
    /// The image is not there, or the registry refuses.
    pub async fn attach(
        &self,
        reference: &Reference,
        image: Digest,
        artifact: &Artifact,
    ) -> Result<Descriptor, RegistryError> {
        let progress: Arc<dyn Progress> = Arc::new(());
        let at = self.repository(reference)?;
        let subject = self.document(&at, &image.to_string(), &progress).await?;
        let ready = artifact.ready(subject.descriptor);
        for (blob, bytes) in &ready.blobs {
            self.put_small(&at, blob, bytes, &progress).await?;
        }
        self.put_referrer(&at, image, &ready.manifest, &progress).await?;
        Ok(ready.manifest.descriptor)
    }

    pub(crate) async fn referrers_at(
        &self,
        at: &Repository,
        image: Digest,
        progress: &Arc<dyn Progress>,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        let listed = self.listed_referrers(at, image, progress).await?;
        let mut index = match listed {
            Some(index) => index,
            None => self.tagged_referrers(at, image, progress).await?.0,
        };
        cosign::unmark(&mut index.manifests);
        // First, since a long list is cut.
        if let Some(tagged) = self.tagged_signatures(at, image, progress).await? {
            index.manifests.insert(0, tagged.descriptor);
        }
        Ok(index.manifests)
    }

    /// Store what refers to an image where it belongs: among the referrers, or under cosign's tag.
    pub(crate) async fn put_beside(
        &self,
        at: &Repository,
        image: Digest,
        manifest: &Document,
        progress: &Arc<dyn Progress>,
    ) -> Result<(), RegistryError> {
        match cosign::is_tagged(&manifest.descriptor) {
            true => self.put_tagged_signatures(at, image, manifest, progress).await,
            false => self.put_referrer(at, image, manifest, progress).await,
        }
    }

    /// Store a manifest that refers to an image, and see to it that it is listed.
    async fn put_referrer(
        &self,
        at: &Repository,
        image: Digest,
        manifest: &Document,
        progress: &Arc<dyn Progress>,
    ) -> Result<(), RegistryError> {
        let digest = manifest.descriptor.digest.to_string();
        if self.put_document(at, &digest, manifest, progress).await? {
            return Ok(());
        }
        for _ in 0..MAX_RACES {
            let (mut index, there) = self.tagged_referrers(at, image, progress).await?;
            let known = |it: &Descriptor| it.digest == manifest.descriptor.digest;
            if there && index.manifests.iter().any(known) {
                return Ok(());
            }
            index.manifests.push(manifest.descriptor.clone());
            let bytes = Bytes::from(serde_json::to_vec(&index).unwrap_or_default());
            let document = Document { descriptor: Descriptor::of(oci::INDEX, &bytes), bytes };
            // Who wrote meanwhile is overwritten: so it is read again until ours is in it.
            self.put_document(at, &fallback_tag(image), &document, progress).await?;
        }
        Err(at.odd(&fallback_tag(image), "others change the list of referrers all the time"))
    }

    /// Have what refers to an image in the store. Large artifacts are left out: they are no
    /// signatures.
    pub(crate) async fn pull_referrers(
        &self,
        at: &Repository,
        image: Digest,
        store: &Store,
        lease: &Arc<Lease>,
        progress: &Arc<dyn Progress>,
    ) -> Result<Brought, RegistryError> {
        let known = store.referrers(image)?;
        let mut brought = Brought::default();
        let listed = self.referrers_at(at, image, progress).await?;
        if listed.len() > MAX_REFERRERS {
            let count = listed.len();
            tracing::warn!(%image, count, "only {MAX_REFERRERS} of what refers to it are pulled");
        }
        for referrer in listed.into_iter().take(MAX_REFERRERS) {
            if known.iter().any(|known| known.digest == referrer.digest) {
                brought.count += 1;
                continue;
            }
            match self.bring(at, image, &referrer, progress).await {
                Ok(Some((manifest, blobs))) => {
                    let blob_bytes: usize = blobs.iter().map(Bytes::len).sum();
                    brought.count += 1;
                    brought.bytes += blob_bytes as u64 + manifest.descriptor.size;
                    keep(store, lease, image, referrer, manifest, blobs).await?;
                }
                Ok(None) => {}
                Err(error) if error.is_transient() => return Err(error),
                // One that is damaged hides no other.
                Err(error) => {
                    let referrer = referrer.digest;
                    tracing::warn!(%referrer, %error, "what refers to an image is passed over");
                }
            }
        }
        Ok(brought)
    }

    /// Get an artifact with its blobs; none if it is gone, large, or another image's.
    pub(crate) async fn bring(
        &self,
        at: &Repository,
        image: Digest,
        referrer: &Descriptor,
        progress: &Arc<dyn Progress>,
    ) -> Result<Option<(Document, Vec<Bytes>)>, RegistryError> {
        let manifest = match self.document(at, &referrer.digest.to_string(), progress).await {
            // The list names what was deleted.
            Err(RegistryError::NotFound { .. }) => return Ok(None),
            other => other?,
        };
        let Ok(parsed) = manifest.parse::<Image>(at) else { return Ok(None) };
        let subject = parsed.subject.as_ref().map(|subject| subject.digest);
        let ours = subject == Some(image) || (subject.is_none() && cosign::is_tagged(referrer));
        let mut leaves: Vec<_> = std::iter::once(parsed.config).chain(parsed.layers).collect();
        let size = leaves.iter().fold(0, |sum: u64, leaf| sum.saturating_add(leaf.size));
        if !ours || size > MAX_ARTIFACT || leaves.len() > MAX_BLOBS {
            tracing::debug!(referrer = %referrer.digest, "left out: large, or of another");
            return Ok(None);
        }
        // Two keys sign one payload.
        leaves.sort_by_key(|leaf| leaf.digest);
        leaves.dedup_by_key(|leaf| leaf.digest);
        let mut blobs = Vec::new();
        for leaf in &leaves {
            blobs.push(self.small_blob(at, leaf, MAX_ARTIFACT, progress).await?);
        }
        Ok(Some((manifest, blobs)))
    }

    /// The list that clients keep, and whether there is one.
    async fn tagged_referrers(
        &self,
        at: &Repository,
        image: Digest,
        progress: &Arc<dyn Progress>,
    ) -> Result<(Index, bool), RegistryError> {
        match self.document(at, &fallback_tag(image), progress).await {
            Ok(document) if oci::is_index(&document.descriptor.media_type) => {
                Ok((document.parse(at)?, true))
            }
            Ok(_) => Err(at.odd(&fallback_tag(image), "the list of referrers is no index")),
            Err(RegistryError::NotFound { .. }) => {
                let index = Index {
                    annotations: Annotations::new(),
                    manifests: Vec::new(),
                    media_type: Some(oci::INDEX.to_owned()),
                    schema_version: 2,
                };
                Ok((index, false))
            }
            Err(error) => Err(error),
        }
    }
}

// === impl Store ===

impl Store {
    /// Keep an artifact that refers to an image, which need not be in the store.
    ///
    /// # Errors
    /// The store can't be written.
    pub fn attach_artifact(
        &self,
        lease: &Lease,
        subject: &Descriptor,
        artifact: &Artifact,
    ) -> Result<Descriptor, StoreError> {
        let ready = artifact.ready(subject.clone());
        let blobs = ready.blobs.iter().map(|(blob, _)| blob.digest);
        lease.protect(blobs.chain([ready.manifest.descriptor.digest]))?;
        for (_, bytes) in &ready.blobs {
            self.put(bytes)?;
        }
        self.put(&ready.manifest.bytes)?;
        self.attach(lease, subject.digest, &ready.manifest.descriptor)?;
        Ok(ready.manifest.descriptor)
    }
}

async fn keep(
    store: &Store,
    lease: &Arc<Lease>,
    image: Digest,
    referrer: Descriptor,
    manifest: Document,
    blobs: Vec<Bytes>,
) -> Result<(), RegistryError> {
    let (store, lease) = (store.clone(), lease.clone());
    blocking(move || {
        let digests = blobs.iter().map(|blob| Digest::of(blob));
        lease.protect(digests.chain([manifest.descriptor.digest]))?;
        for blob in &blobs {
            store.put(blob)?;
        }
        store.put(&manifest.bytes)?;
        // Of what the registry says, only what has a bound: the store's index is one document.
        let artifact_type = referrer.artifact_type.filter(|kind| kind.len() <= MAX_TYPE);
        let entry = Descriptor { artifact_type, ..manifest.descriptor };
        store.attach(&lease, image, &entry)
    })
    .await
}
