//! What cosign 1 and 2 put beside an image: a manifest under the tag `sha256-HEX.sig`, with a layer
//! for each signature. It refers to the image by that tag only, so it is in no list of referrers.
//! Here it becomes one more of them, and goes back under its tag.
//!
//! Which types and tags these are is `wick_package`'s to know; what is signed is not read here.

use std::sync::Arc;

use wick_package::Digest;
use wick_package::oci::{self, Descriptor, Image};
use wick_package::signature::{COSIGN_TYPE, cosign_tag};

use crate::api::{Document, Repository};
use crate::client::Registry;
use crate::error::RegistryError;
use crate::progress::Progress;

/// Whether an entry among what refers to an image lies under cosign's tag.
pub(crate) fn is_tagged(entry: &Descriptor) -> bool {
    entry.artifact_type.as_deref() == Some(COSIGN_TYPE)
}

/// Lists of referrers have nothing of this type: it is our own mark.
pub(crate) fn unmark(listed: &mut [Descriptor]) {
    for entry in listed.iter_mut().filter(|entry| is_tagged(entry)) {
        entry.artifact_type = None;
    }
}

// === impl Registry ===

impl Registry {
    /// What lies under cosign's tag for an image.
    pub(crate) async fn tagged_signatures(
        &self,
        at: &Repository,
        image: Digest,
        progress: &Arc<dyn Progress>,
    ) -> Result<Option<Document>, RegistryError> {
        let tag = cosign_tag(image);
        match self.document(at, &tag, progress).await {
            Ok(mut document) if oci::is_manifest(&document.descriptor.media_type) => {
                document.descriptor.artifact_type = Some(COSIGN_TYPE.to_owned());
                Ok(Some(document))
            }
            // Somebody's own, and no reason to miss what is listed.
            Ok(_) => Ok(None),
            Err(RegistryError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Put signatures, whose layers are there, under cosign's tag. The tag has one manifest for all
    /// of them, so one that would take others away is refused.
    pub(crate) async fn put_tagged_signatures(
        &self,
        at: &Repository,
        image: Digest,
        manifest: &Document,
        progress: &Arc<dyn Progress>,
    ) -> Result<(), RegistryError> {
        let tag = cosign_tag(image);
        if let Some(there) = self.tagged_signatures(at, image, progress).await? {
            let (old, new): (Image, Image) = (there.parse(at)?, manifest.parse(at)?);
            if has_all(&old, &new) {
                return Ok(());
            }
            if !has_all(&new, &old) {
                return Err(RegistryError::OtherSignatures {
                    host: at.host(),
                    name: at.name.clone(),
                    tag,
                });
            }
        }
        self.put_document(at, &tag, manifest, progress).await.map(drop)
    }
}

/// Whether one manifest has every layer of another. A layer is its payload and, in an annotation,
/// its signature.
fn has_all(one: &Image, other: &Image) -> bool {
    let has = |layer: &Descriptor| {
        one.layers
            .iter()
            .any(|its| its.digest == layer.digest && its.annotations == layer.annotations)
    };
    other.layers.iter().all(has)
}
