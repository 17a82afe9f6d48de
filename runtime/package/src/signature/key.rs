//! Public keys, and what they are known by.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::pkcs8::EncodePublicKey as _;
use p256::ecdsa::signature::Verifier as _;
use pkcs8::DecodePublicKey as _;
use pkcs8::der::pem::LineEnding;
use pkcs8::der::{Decode as _, Document};
use pkcs8::spki::SubjectPublicKeyInfoRef;
use sha2::{Digest as _, Sha512};

use crate::digest::{Digest, DigestError};
use crate::signature::dsse;
use crate::signature::error::SignatureError;

/// Longest text of a public key. A real one has two hundred bytes.
pub(super) const MAX_KEY: usize = 8 << 10;

/// The label of a public key's PEM block.
const LABEL: &str = "PUBLIC KEY";

/// Names a key: the SHA-256 of its SubjectPublicKeyInfo, so that the same key has the same id in
/// every file and for every tool.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(Digest);

/// Somebody's key, to check signatures with.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    id: KeyId,
    kind: Kind,
}

#[derive(Clone, PartialEq, Eq)]
enum Kind {
    /// Ours, and cosign's where it was asked for.
    Ed25519(ed25519_dalek::VerifyingKey),
    /// What cosign makes by default.
    P256(p256::ecdsa::VerifyingKey),
}

// === impl PublicKey ===

impl PublicKey {
    /// Read a `PUBLIC KEY` block; text round it is passed over.
    ///
    /// # Errors
    /// There is none, or one of another kind.
    pub fn from_pem(text: &str) -> Result<Self, SignatureError> {
        if text.len() > MAX_KEY {
            return Err(SignatureError::Long { what: "the public key", most: MAX_KEY });
        }
        let begin = format!("-----BEGIN {LABEL}-----");
        let start = text.find(&begin).ok_or(SignatureError::PublicKey("this text"))?;
        // Lines that an editor or TOML has indented are still the key's.
        let block: String =
            text[start..].lines().map(|line| format!("{}\n", line.trim())).collect();
        let end = format!("-----END {LABEL}-----\n");
        let end = block.find(&end).map(|at| at + end.len());
        let block = &block[..end.ok_or(SignatureError::PublicKey("a block that does not end"))?];
        let parsed = Document::from_pem(block);
        let (_, der) = parsed.map_err(|_| SignatureError::PublicKey("a damaged block"))?;
        Self::from_der(der.as_bytes())
    }

    fn from_der(der: &[u8]) -> Result<Self, SignatureError> {
        let damaged = || SignatureError::PublicKey("a damaged block");
        // The whole of it: an id of a key with bytes behind it would be another key's.
        SubjectPublicKeyInfoRef::from_der(der).map_err(|_| damaged())?;
        let kind = match ed25519_dalek::VerifyingKey::from_public_key_der(der) {
            // With a point of small order anybody can sign.
            Ok(key) if key.is_weak() => return Err(SignatureError::PublicKey("a weak key")),
            Ok(key) => Kind::Ed25519(key),
            Err(_) => {
                let key = p256::ecdsa::VerifyingKey::from_public_key_der(der);
                Kind::P256(key.map_err(|_| SignatureError::PublicKey("a key of another kind"))?)
            }
        };
        Ok(Self { id: KeyId(Digest::of(der)), kind })
    }

    pub(super) fn of_ed25519(key: ed25519_dalek::VerifyingKey) -> Self {
        let der = key.to_public_key_der().expect("an ed25519 key has a fixed form");
        Self { id: KeyId(Digest::of(der.as_bytes())), kind: Kind::Ed25519(key) }
    }

    /// The `PUBLIC KEY` block.
    pub fn to_pem(&self) -> String {
        let der = match &self.kind {
            Kind::Ed25519(key) => key.to_public_key_der(),
            Kind::P256(key) => p256::PublicKey::from(key).to_public_key_der(),
        };
        let pem = der.map(|der| der.to_pem(LABEL, LineEnding::LF));
        pem.ok().and_then(Result::ok).expect("a key that was read has a text form")
    }

    pub fn id(&self) -> KeyId {
        self.id
    }

    /// `ed25519` or `ecdsa-p256`.
    pub fn algorithm(&self) -> &'static str {
        match self.kind {
            Kind::Ed25519(_) => "ed25519",
            Kind::P256(_) => "ecdsa-p256",
        }
    }

    /// Whether this key has signed these bytes.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.kind {
            Kind::Ed25519(key) => {
                let Ok(signature) = ed25519_dalek::Signature::from_slice(signature) else {
                    return false;
                };
                // Plain, as we sign, or of the hash, as cosign does. The one is never taken for
                // the other: the hash is signed with a prefix.
                let hash = || Sha512::new_with_prefix(message);
                key.verify_strict(message, &signature).is_ok()
                    || key.verify_prehashed_strict(hash(), None, &signature).is_ok()
            }
            Kind::P256(key) => {
                let signature = p256::ecdsa::DerSignature::from_bytes(signature);
                signature.is_ok_and(|signature| key.verify(message, &signature).is_ok())
            }
        }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.algorithm(), self.id)
    }
}

// === impl KeyId ===

impl KeyId {
    /// As sigstore's bundles give it.
    pub(super) fn to_hint(self) -> String {
        dsse::encode(self.0.as_bytes())
    }

    /// The key that a bundle's hint means, if it means one.
    pub(super) fn of_hint(hint: &str) -> Option<Self> {
        let bytes = dsse::decode(hint, "a hint").ok()?;
        Some(Self(Digest::from_bytes(bytes.try_into().ok()?)))
    }
}

impl FromStr for KeyId {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        text.parse().map(Self)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl serde::Serialize for KeyId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}
