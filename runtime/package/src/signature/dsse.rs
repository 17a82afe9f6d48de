//! DSSE, the Dead Simple Signing Envelope: bytes with a type, and signatures over both.

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::prelude::BASE64_STANDARD;

use crate::signature::error::SignatureError;
use crate::signature::key::PublicKey;
use crate::signature::private_key::PrivateKey;

/// Longest payload. A statement about an image has some hundred bytes.
pub(super) const MAX_PAYLOAD: usize = 64 << 10;

/// Most signatures of one envelope; each costs a verification for each key.
const MAX_SIGNATURES: usize = 16;

/// Longest text of a signature, of any algorithm that is read.
pub(super) const MAX_SIGNATURE_TEXT: usize = 1024;

/// The specification permits padding or none, and either alphabet.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// Signed bytes, their type, and who signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dsse {
    pub(super) payload_type: String,
    pub(super) payload: Vec<u8>,
    pub(super) signatures: Vec<Vec<u8>>,
}

/// As JSON.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Text {
    payload: String,
    payload_type: String,
    signatures: Vec<SignatureText>,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct SignatureText {
    // The `keyid` beside it is a hint, and nothing that is signed. cosign passes over a signature
    // with one that it did not make itself, so none is written.
    sig: String,
}

/// The pre-authentication encoding: what is signed. The type and both lengths are in it, so that
/// no other split of the same bytes means something else.
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes =
        format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

/// Bytes from base64 of either alphabet.
pub(super) fn decode(text: &str, what: &'static str) -> Result<Vec<u8>, SignatureError> {
    let alphabet = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
    let decoded = GeneralPurpose::new(alphabet, LENIENT).decode(text);
    decoded.map_err(|_| SignatureError::Base64 { what })
}

pub(super) fn encode(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

// === impl Dsse ===

impl Dsse {
    pub(super) fn sign(payload_type: &str, payload: Vec<u8>, key: &PrivateKey) -> Self {
        let signatures = vec![key.sign(&pae(payload_type, &payload)).to_vec()];
        Self { payload_type: payload_type.to_owned(), payload, signatures }
    }

    pub(super) fn from_text(text: Text) -> Result<Self, SignatureError> {
        let long = |what, most| SignatureError::Long { what, most };
        // Base64 has four bytes for three.
        if text.payload.len() > MAX_PAYLOAD / 3 * 4 + 4 || text.payload_type.len() > MAX_PAYLOAD {
            return Err(long("the payload of a signature", MAX_PAYLOAD));
        }
        let count = text.signatures.len();
        if count > MAX_SIGNATURES {
            return Err(SignatureError::Many {
                what: "an envelope",
                count,
                parts: "signatures",
                most: MAX_SIGNATURES,
            });
        }
        let one = |SignatureText { sig }: SignatureText| {
            if sig.len() > MAX_SIGNATURE_TEXT {
                return Err(long("a signature", MAX_SIGNATURE_TEXT));
            }
            decode(&sig, "a signature")
        };
        let signatures = text.signatures.into_iter().map(one).collect::<Result<_, _>>()?;
        let payload = decode(&text.payload, "the payload of a signature")?;
        Ok(Self { payload_type: text.payload_type, payload, signatures })
    }

    pub(super) fn to_text(&self) -> Text {
        Text {
            payload: encode(&self.payload),
            payload_type: self.payload_type.clone(),
            signatures: self
                .signatures
                .iter()
                .map(|bytes| SignatureText { sig: encode(bytes) })
                .collect(),
        }
    }

    /// Whether one of the signatures is by this key.
    pub(super) fn is_by(&self, key: &PublicKey) -> bool {
        let message = pae(&self.payload_type, &self.payload);
        self.signatures.iter().any(|signature| key.verifies(&message, signature))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_is_the_specifications() {
        let bytes = pae("http://example.com/HelloWorld", b"hello world");
        assert_eq!(bytes, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
        // Lengths are of bytes, and an empty payload is one.
        assert_eq!(pae("\u{e4}", b""), "DSSEv1 2 \u{e4} 0 ".as_bytes());
    }

    #[test]
    fn base64_is_read_in_all_its_forms() {
        for text in ["-_8=", "-_8", "+/8=", "+/8"] {
            assert_eq!(decode(text, "it").unwrap(), [0xfb, 0xff], "{text}");
        }
        assert!(decode("a+b-", "it").is_err());
    }
}
