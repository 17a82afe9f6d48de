//! Sigstore's bundle, version 0.3, round a DSSE envelope: how one signature lies in a registry.
//!
//! Only what a key pair needs is read. Certificates and transparency logs are for keyless
//! signatures, which need a network; here they are passed over and prove nothing.

use crate::signature::dsse::{self, Dsse};
use crate::signature::envelope::MAX_ENVELOPE;
use crate::signature::error::SignatureError;
use crate::signature::key::KeyId;
use crate::signature::private_key::PrivateKey;

/// The media type of a bundle, and the artifact type of the referrer that holds it.
pub const BUNDLE_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// What the media types of all versions begin with.
const ANY_VERSION: &str = "application/vnd.dev.sigstore.bundle";

/// Longest hint that is kept; sigstore's have 44 bytes.
const MAX_HINT: usize = 256;

/// One signature with what is beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    pub(super) dsse: Dsse,
    /// For whoever looks for the key, and nothing that is signed.
    hint: String,
}

/// As JSON.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Text {
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

// === impl Bundle ===

impl Bundle {
    pub(super) fn sign(payload_type: &str, payload: Vec<u8>, key: &PrivateKey) -> Self {
        // Sigstore's hint is our key's id in base64.
        let hint = key.public().id().to_hint();
        Self { dsse: Dsse::sign(payload_type, payload, key), hint }
    }

    pub(super) fn from_json(bytes: &[u8]) -> Result<Self, SignatureError> {
        if bytes.len() > MAX_ENVELOPE {
            return Err(SignatureError::Long { what: "a bundle", most: MAX_ENVELOPE });
        }
        let json = |source| SignatureError::Json { what: "a bundle", source };
        Self::from_text(serde_json::from_slice(bytes).map_err(json)?)
    }

    pub(super) fn from_text(text: Text) -> Result<Self, SignatureError> {
        if !is_bundle(&text.media_type) {
            let kind: String = text.media_type.chars().take(100).collect();
            let text = format!("its media type is `{}`", kind.escape_debug());
            return Err(SignatureError::Foreign(text));
        }
        let none = || SignatureError::Foreign("its bundle has no DSSE envelope".to_owned());
        let dsse = Dsse::from_text(text.dsse_envelope.ok_or_else(none)?)?;
        let hint = text.verification_material.public_key.map(|key| key.hint);
        let hint = hint.filter(|hint| hint.len() <= MAX_HINT).unwrap_or_default();
        Ok(Self { dsse, hint })
    }

    /// Which key it says to be by.
    pub(super) fn key_hint(&self) -> Option<KeyId> {
        KeyId::of_hint(&self.hint)
    }

    pub(super) fn to_text(&self) -> Text {
        let public_key = Some(Hint { hint: self.hint.clone() });
        Text {
            media_type: BUNDLE_TYPE.to_owned(),
            verification_material: Material { public_key },
            dsse_envelope: Some(self.dsse.to_text()),
        }
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(&self.to_text()).expect("a bundle has text keys and no failing parts")
    }
}
