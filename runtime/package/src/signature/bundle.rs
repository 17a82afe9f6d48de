//! Sigstore's bundle, version 0.3, round a DSSE envelope: how one signature lies in a registry.
//!
//! Only what a key pair needs is read. Certificates and transparency logs are for keyless
//! signatures, which need a network; here they are passed over and prove nothing.

use crate::signature::dsse::{self, Dsse};
use crate::signature::envelope::MAX_ENVELOPE;
use crate::signature::error::SignatureError;
use crate::signature::key::KeyId;

/// The media type of a bundle, and the artifact type of the referrer that holds it.
pub const BUNDLE_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// What the media types of all versions begin with.
const ANY_VERSION: &str = "application/vnd.dev.sigstore.bundle";

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    media_type: String,
    #[serde(default)]
    verification_material: Material,
    // Absent in bundles over a blob's digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dsse_envelope: Option<dsse::Text>,
}

#[derive(Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Material {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    public_key: Option<Hint>,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Hint {
    #[serde(default)]
    hint: String,
}

/// Whether a JSON document says that it is a bundle.
pub(super) fn is_bundle(media_type: &str) -> bool {
    media_type.starts_with(ANY_VERSION)
}

pub(super) fn read(bytes: &[u8]) -> Result<Dsse, SignatureError> {
    if bytes.len() > MAX_ENVELOPE {
        return Err(SignatureError::Long { what: "a bundle", most: MAX_ENVELOPE });
    }
    let json = |source| SignatureError::Json { what: "a bundle", source };
    let bundle: Bundle = serde_json::from_slice(bytes).map_err(json)?;
    if !is_bundle(&bundle.media_type) {
        let kind: String = bundle.media_type.chars().take(100).collect();
        let text = format!("its media type is `{}`", kind.escape_debug());
        return Err(SignatureError::Foreign(text));
    }
    let none = || SignatureError::Foreign("its bundle has no DSSE envelope".to_owned());
    Dsse::from_text(bundle.dsse_envelope.ok_or_else(none)?)
}

pub(super) fn write(dsse: &Dsse) -> Vec<u8> {
    let hint = dsse.signatures.iter().find_map(|signature| hint(signature.key_id.as_deref()?));
    let bundle = Bundle {
        media_type: BUNDLE_TYPE.to_owned(),
        verification_material: Material {
            public_key: Some(Hint { hint: hint.unwrap_or_default() }),
        },
        dsse_envelope: Some(dsse.to_text()),
    };
    serde_json::to_vec(&bundle).expect("a bundle has text keys and no failing parts")
}

/// Sigstore's hint is our key's id in base64.
fn hint(key_id: &str) -> Option<String> {
    key_id.parse().ok().map(|id: KeyId| dsse::encode(id.bytes()))
}
