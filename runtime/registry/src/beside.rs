//! What an image is checked with where nobody has its layers: its documents, and the signatures
//! that lie beside it.

use std::sync::Arc;

use bytes::Bytes;
use wick_package::oci::{self, Index};
use wick_package::signature::holds_signatures;
use wick_package::{Digest, Reference};

use crate::api::{Document, Repository};
use crate::client::Registry;
use crate::error::RegistryError;
use crate::progress::Progress;

/// Most platforms of one image, and most artifacts beside it. An envelope takes no more.
const MAX_PLATFORMS: usize = 15;
const MAX_ARTIFACTS: usize = 32;

/// What a registry has of an image beside its layers.
#[derive(Debug, Clone, Default)]
pub struct Beside {
    /// The index, and the manifests of its platforms; or the manifest alone.
    pub documents: Vec<Bytes>,
    /// Artifacts that may be signatures: of each its manifest and its blobs.
    pub artifacts: Vec<(Bytes, Vec<Bytes>)>,
}

// === impl Registry ===

impl Registry {
    /// Get what an image is checked with. A mirror that has no signatures does not speak for the
    /// registry itself.
    ///
    /// # Errors
    /// The image is not there, or nobody can be asked.
    pub async fn beside(
        &self,
        reference: &Reference,
        image: Digest,
    ) -> Result<Beside, RegistryError> {
        let progress: Arc<dyn Progress> = Arc::new(());
        let mut found = None;
        let places = self.readable(reference)?;
        let last = places.len().saturating_sub(1);
        for (number, at) in places.into_iter().enumerate() {
            match self.beside_at(&at, image, &progress).await {
                Ok(beside) if beside.artifacts.is_empty() && number < last => found = Some(beside),
                Ok(beside) => return Ok(beside),
                Err(error) if number < last => {
                    tracing::warn!(mirror = at.host(), %error, "the mirror does not help");
                }
                Err(error) => return found.ok_or(error),
            }
        }
        Ok(found.unwrap_or_default())
    }

    async fn beside_at(
        &self,
        at: &Repository,
        image: Digest,
        progress: &Arc<dyn Progress>,
    ) -> Result<Beside, RegistryError> {
        let root = self.document(at, &image.to_string(), progress).await?;
        let mut documents = vec![root.bytes.clone()];
        if oci::is_index(&root.descriptor.media_type) {
            let manifests = self.manifests(at, &root, progress).await?;
            documents.extend(manifests.into_iter().map(|document| document.bytes));
        }
        let mut listed = self.referrers_at(at, image, progress).await?;
        listed.retain(holds_signatures);
        let mut artifacts = Vec::new();
        for artifact in listed.iter().take(MAX_ARTIFACTS) {
            match self.bring(at, image, artifact, progress).await {
                Ok(brought) => {
                    artifacts.extend(brought.map(|(document, blobs)| (document.bytes, blobs)));
                }
                Err(error) if error.is_transient() => return Err(error),
                // One that is damaged hides no other.
                Err(error) => {
                    let artifact = artifact.digest;
                    tracing::warn!(%artifact, %error, "what refers to an image is passed over");
                }
            }
        }
        Ok(Beside { documents, artifacts })
    }

    async fn manifests(
        &self,
        at: &Repository,
        index: &Document,
        progress: &Arc<dyn Progress>,
    ) -> Result<Vec<Document>, RegistryError> {
        let mut manifests = index.parse::<Index>(at)?.manifests;
        manifests.retain(|manifest| oci::is_manifest(&manifest.media_type));
        if manifests.len() > MAX_PLATFORMS {
            let why = format!("has more than {MAX_PLATFORMS} platforms");
            return Err(at.odd(&index.descriptor.digest.to_string(), why));
        }
        let mut found = Vec::new();
        for manifest in &manifests {
            match self.document(at, &manifest.digest.to_string(), progress).await {
                Ok(document) => found.push(document),
                // A registry may hold one platform of several.
                Err(RegistryError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }
}
