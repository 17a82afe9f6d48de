//! What cosign has written before its bundles: a payload, and its signature in an annotation.
//!
//! The tag `sha256-HEX.sig` beside the image names a manifest whose layers are the payloads.

use crate::digest::Digest;
use crate::oci;
use crate::signature::dsse::{self, MAX_PAYLOAD, MAX_SIGNATURE_TEXT};
use crate::signature::error::SignatureError;
use crate::signature::signed::Claim;

/// The media type of a payload, and what a store notes as the type of what lies under the tag.
pub const COSIGN_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// The annotation with the signature, in base64.
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";

/// What the payload must say that it is.
const KIND: &str = "cosign container image signature";

/// Most signatures that are read for one image.
const MAX_LAYERS: usize = 64;

/// A signature by a key pair, as cosign 1 and 2 write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Simple {
    pub(super) payload: Vec<u8>,
    pub(super) signature: Vec<u8>,
}

/// A payload to fetch, and the signature that goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CosignLayer {
    pub payload: Digest,
    pub size: u64,
    pub(super) signature: Vec<u8>,
}

#[derive(serde::Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(serde::Deserialize)]
struct Critical {
    #[serde(default)]
    identity: Identity,
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Default, serde::Deserialize)]
struct Identity {
    #[serde(rename = "docker-reference", default)]
    reference: String,
}

#[derive(serde::Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: Digest,
}

/// The payloads and signatures that the manifest of a `.sig` tag lists. Layers of another kind
/// are passed over.
///
/// # Errors
/// It is no manifest, or lists too many.
pub fn cosign_signatures(manifest: &[u8]) -> Result<Vec<CosignLayer>, SignatureError> {
    let json =
        |source| SignatureError::Json { what: "the manifest of cosign's signatures", source };
    let image: oci::Image = serde_json::from_slice(manifest).map_err(json)?;
    let count = image.layers.len();
    if count > MAX_LAYERS {
        return Err(SignatureError::Many {
            what: "the manifest of cosign's signatures",
            count,
            parts: "layers",
            most: MAX_LAYERS,
        });
    }
    let mut found = Vec::new();
    for layer in image.layers.iter().filter(|layer| layer.media_type == COSIGN_TYPE) {
        let Some(text) = layer.annotations.get(SIGNATURE) else { continue };
        if text.len() > MAX_SIGNATURE_TEXT || layer.size > MAX_PAYLOAD as u64 {
            return Err(SignatureError::Long { what: "a signature of cosign", most: MAX_PAYLOAD });
        }
        let signature = dsse::decode(text, "a signature of cosign")?;
        found.push(CosignLayer { payload: layer.digest, size: layer.size, signature });
    }
    Ok(found)
}

/// What a payload says.
pub(super) fn read(payload: &[u8]) -> Result<Claim, SignatureError> {
    let json = |source| SignatureError::Json { what: "the payload of cosign's signature", source };
    let Payload { critical } = serde_json::from_slice(payload).map_err(json)?;
    if critical.kind != KIND {
        let kind: String = critical.kind.chars().take(100).collect();
        let text = format!("its payload is of type `{}`", kind.escape_debug());
        return Err(SignatureError::Foreign(text));
    }
    Ok(Claim {
        digest: critical.image.digest,
        image: Some(critical.identity.reference).filter(|name| !name.is_empty()),
        package: None,
        version: None,
        signed_at: None,
    })
}
