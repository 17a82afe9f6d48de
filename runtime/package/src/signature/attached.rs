//! The signatures that an artifact beside an image leads to, whichever form they have. Its manifest
//! says which blobs there are to fetch, and each blob then is a signature. Fetches nothing.

use crate::digest::Digest;
use crate::oci::{self, Descriptor};
use crate::signature::bundle::{self, BUNDLE_TYPE};
use crate::signature::cosign::{COSIGN_TYPE, CosignLayer, cosign_signatures};
use crate::signature::error::SignatureError;
use crate::signature::referrer::{Listed, Referrer};
use crate::signature::signed::Signature;

/// What cosign 2 calls its signatures where it makes them referrers.
const COSIGN_ARTIFACT: &str = "application/vnd.dev.cosign.artifact.sig.";

/// A signature whose bytes are still to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attached {
    /// The bundle of a referrer.
    Bundle(Listed),
    /// What cosign 1 and 2 write, under a tag of its own or as a referrer.
    Cosign(CosignLayer),
}

/// Whether an artifact of this type may have signatures that are read.
pub fn holds_signatures(artifact: &Descriptor) -> bool {
    let kind = artifact.artifact_type.as_deref();
    // Lists of other tools leave the type out.
    kind.is_none_or(|kind| kind.starts_with(COSIGN_ARTIFACT) || kind == COSIGN_TYPE)
        || kind.is_some_and(bundle::is_bundle)
}

// === impl Attached ===

impl Attached {
    /// What the manifest of an artifact has for an image; nothing if it is about another.
    ///
    /// # Errors
    /// It is no manifest, or lists too many.
    pub fn of(manifest: &[u8], image: Digest) -> Result<Vec<Self>, SignatureError> {
        let json = |source| SignatureError::Json { what: "the manifest of a signature", source };
        let parsed: oci::Image = serde_json::from_slice(manifest).map_err(json)?;
        // Under cosign's tag there is no subject: the payload says which image it is for.
        if parsed.subject.as_ref().is_some_and(|subject| subject.digest != image) {
            return Ok(Vec::new());
        }
        let bundle = Referrer::bundle_of(manifest, image)?;
        let payloads = cosign_signatures(manifest)?;
        Ok(bundle
            .map(Self::Bundle)
            .into_iter()
            .chain(payloads.into_iter().map(Self::Cosign))
            .collect())
    }

    /// The blob to fetch.
    pub fn blob(&self) -> Descriptor {
        match self {
            Self::Bundle(Listed { digest, size }) => Descriptor::new(BUNDLE_TYPE, *digest, *size),
            Self::Cosign(layer) => Descriptor::new(COSIGN_TYPE, layer.payload, layer.size),
        }
    }

    /// The signature, with the blob's bytes.
    ///
    /// # Errors
    /// They are another blob's, or no signature that is read.
    pub fn read(self, bytes: Vec<u8>) -> Result<Signature, SignatureError> {
        match self {
            Self::Bundle(_) => Signature::from_bundle(&bytes),
            Self::Cosign(layer) => Signature::from_cosign(layer, bytes),
        }
    }
}
