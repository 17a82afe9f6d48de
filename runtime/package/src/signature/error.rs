//! What can be wrong with keys, signatures and envelopes.

use crate::digest::Digest;
use crate::reason::Reason;

/// A key or a signature that can't be used, or does not hold.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    #[error("{0} is no public key: a PEM block `PUBLIC KEY` of ed25519 or ECDSA P-256 is")]
    PublicKey(&'static str),
    #[error(
        "this is no private key: a PEM block `PRIVATE KEY` or `ENCRYPTED PRIVATE KEY` of ed25519 \
         is, as `wick key generate` writes it"
    )]
    PrivateKey,
    #[error("the private key is encrypted: give its passphrase")]
    Encrypted,
    #[error("the passphrase does not open the private key")]
    Passphrase,
    #[error("the key can't be encrypted")]
    Encrypt,
    #[error("{what} is longer than {most} bytes")]
    Long { what: &'static str, most: usize },
    #[error("{what} is not the JSON that it should be")]
    Json { what: &'static str, source: serde_json::Error },
    #[error("{what} is not base64")]
    Base64 { what: &'static str },
    #[error("{what} has {count} {parts}: at most {most} are read")]
    Many { what: &'static str, count: usize, parts: &'static str, most: usize },
    #[error("the signature is for other content: {0}")]
    Foreign(String),
    #[error("the signature is for {signed} and not for {wanted}")]
    OtherDigest { wanted: Digest, signed: String },
    #[error("no key of the {tried} that were tried has made this signature")]
    OtherKey { tried: usize },
}

impl Reason for SignatureError {
    fn code(&self) -> &'static str {
        match self {
            Self::PublicKey(_) | Self::PrivateKey => "bad-key",
            Self::Encrypted | Self::Passphrase => "passphrase",
            Self::Encrypt => "internal",
            Self::Foreign(_) | Self::OtherDigest { .. } => "signature-for-another",
            Self::OtherKey { .. } => "signature-by-another",
            Self::Long { .. } | Self::Json { .. } | Self::Base64 { .. } | Self::Many { .. } => {
                "bad-signature"
            }
        }
    }
}
