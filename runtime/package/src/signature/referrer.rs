//! How a signature lies in a registry: an artifact manifest that refers to the image, and for
//! registries without the referrers API the tag that lists such manifests. Bytes in, bytes out.
//!
//! ```text
//!  image index ◀── subject ── manifest ── layer: bundle
//!       sha256-HEX ─▶ index of manifests      (the fallback)
//!       sha256-HEX.sig ─▶ manifest ── layers: payloads      (cosign 1 and 2)
//! ```

use serde_json::{Map, Value, json};

use crate::digest::Digest;
use crate::oci::{self, Annotations};
use crate::signature::bundle::{self, BUNDLE_TYPE};
use crate::signature::envelope::MAX_ENVELOPE;
use crate::signature::error::SignatureError;
use crate::signature::signed::Signature;
use crate::signature::statement::PREDICATE_TYPE;

/// The configuration of an artifact that has none, and its media type.
const EMPTY: &[u8] = b"{}";
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";

/// What cosign marks its bundles with, so that `cosign tree` shows what they are.
const CONTENT: &str = "dev.sigstore.bundle.content";
const PREDICATE: &str = "dev.sigstore.bundle.predicateType";
const CREATED: &str = "org.opencontainers.image.created";

/// Longest index of referrers; registries refuse longer manifests.
const MAX_INDEX: usize = 4 << 20;

/// Most referrers that are read for one image.
const MAX_REFERRERS: usize = 256;

/// A signature, ready to be pushed: each of these bytes by its own digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Referrer {
    /// The artifact manifest, of media type `application/vnd.oci.image.manifest.v1+json`.
    pub manifest: Vec<u8>,
    /// A blob.
    pub config: Vec<u8>,
    /// A blob: the bundle.
    pub layer: Vec<u8>,
}

/// A manifest that refers to an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub digest: Digest,
    pub size: u64,
}

/// The tag that lists what refers to a digest, where a registry can't.
pub fn fallback_tag(digest: Digest) -> String {
    format!("sha256-{}", digest.hex())
}

/// The tag of cosign 1 and 2 for the signatures of a digest.
pub fn cosign_tag(digest: Digest) -> String {
    format!("sha256-{}.sig", digest.hex())
}

/// The index behind the fallback tag with one more manifest in it. What else it lists stays as
/// it is, byte for byte of each entry's meaning; none before is an empty one.
///
/// # Errors
/// What is there is no index.
pub fn fallback_index(
    before: Option<&[u8]>,
    referrer: &Referrer,
) -> Result<Vec<u8>, SignatureError> {
    let mut index = match before {
        None => Map::new(),
        Some(bytes) => parse(bytes)?,
    };
    index.insert("schemaVersion".to_owned(), 2.into());
    index.insert("mediaType".to_owned(), oci::INDEX.into());
    let entries = index.entry("manifests").or_insert_with(|| Value::Array(Vec::new()));
    let entry = referrer.descriptor();
    match entries.as_array_mut() {
        Some(entries) if entries.iter().any(|other| other["digest"] == entry["digest"]) => {}
        Some(entries) => entries.push(entry),
        None => *entries = Value::Array(vec![entry]),
    }
    Ok(serde_json::to_vec(&index).expect("JSON that was read can be written"))
}

/// The manifests of signatures that an index lists: the answer of the referrers API, or what the
/// fallback tag names.
///
/// # Errors
/// It is no index, or lists too many.
pub fn referrers_of(index: &[u8]) -> Result<Vec<Listed>, SignatureError> {
    let index = parse(index)?;
    let entries = index.get("manifests").and_then(Value::as_array);
    let entries = entries.map_or(&[][..], Vec::as_slice);
    let one = |entry: &Value| {
        let kind = entry["artifactType"].as_str()?;
        let listed = Listed {
            digest: entry["digest"].as_str()?.parse().ok()?,
            size: entry["size"].as_u64()?,
        };
        bundle::is_bundle(kind).then_some(listed)
    };
    let found: Vec<_> = entries.iter().filter_map(one).collect();
    if found.len() > MAX_REFERRERS {
        return Err(SignatureError::Many {
            what: "the list of referrers",
            count: found.len(),
            parts: "signatures",
            most: MAX_REFERRERS,
        });
    }
    Ok(found)
}

fn parse(bytes: &[u8]) -> Result<Map<String, Value>, SignatureError> {
    if bytes.len() > MAX_INDEX {
        return Err(SignatureError::Long { what: "the list of referrers", most: MAX_INDEX });
    }
    let json = |source| SignatureError::Json { what: "the list of referrers", source };
    serde_json::from_slice(bytes).map_err(json)
}

// === impl Referrer ===

impl Referrer {
    /// The artifact for a signature of an image, whose index or manifest has these bytes. None
    /// for a signature of cosign 1 or 2, which lies under a tag of its own.
    pub fn new(signature: &Signature, subject: &[u8]) -> Option<Self> {
        let layer = signature.to_bundle()?;
        let is_index = serde_json::from_slice::<oci::Image>(subject).is_err();
        let kind = if is_index { oci::INDEX } else { oci::MANIFEST };
        let manifest = json!({
            "annotations": Self::annotations(signature),
            "artifactType": BUNDLE_TYPE,
            "config": descriptor(EMPTY_TYPE, EMPTY),
            "layers": [descriptor(BUNDLE_TYPE, &layer)],
            "mediaType": oci::MANIFEST,
            "schemaVersion": 2,
            "subject": descriptor(kind, subject),
        });
        let manifest = manifest.to_string().into_bytes();
        Some(Self { manifest, config: EMPTY.to_vec(), layer })
    }

    /// What the manifest says of the bundle: for people, and for `cosign tree`.
    pub fn annotations(signature: &Signature) -> Annotations {
        let mut annotations = Annotations::from([
            (CONTENT.to_owned(), "dsse-envelope".to_owned()),
            (PREDICATE.to_owned(), PREDICATE_TYPE.to_owned()),
        ]);
        let claims = signature.claims().unwrap_or_default();
        if let Some(at) = claims.into_iter().find_map(|claim| claim.signed_at) {
            annotations.insert(CREATED.to_owned(), at);
        }
        annotations
    }

    /// The entry of an index for it.
    fn descriptor(&self) -> Value {
        let mut entry = descriptor(oci::MANIFEST, &self.manifest);
        entry["artifactType"] = BUNDLE_TYPE.into();
        let manifest: Value = serde_json::from_slice(&self.manifest).unwrap_or_default();
        entry["annotations"] = manifest["annotations"].clone();
        entry
    }

    /// Where the bundle is that an artifact manifest has; none if the manifest refers to another
    /// image than `subject` or has something else.
    ///
    /// # Errors
    /// It is no manifest.
    pub fn bundle_of(manifest: &[u8], subject: Digest) -> Result<Option<Listed>, SignatureError> {
        let json = |source| SignatureError::Json { what: "the manifest of a signature", source };
        let image: oci::Image = serde_json::from_slice(manifest).map_err(json)?;
        if image.subject.as_ref().is_none_or(|its| its.digest != subject) {
            return Ok(None);
        }
        let mut layers = image.layers.iter();
        let layer = layers.find(|layer| bundle::is_bundle(&layer.media_type));
        let layer = layer.filter(|layer| layer.size <= MAX_ENVELOPE as u64);
        Ok(layer.map(|layer| Listed { digest: layer.digest, size: layer.size }))
    }
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "digest": Digest::of(bytes), "mediaType": media_type, "size": bytes.len() })
}
