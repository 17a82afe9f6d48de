//! Private keys: made from random bytes that the caller brings, kept as PKCS#8.

use std::fmt;

use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, KeypairBytes};
use ed25519_dalek::{Signer as _, SigningKey};
use pkcs8::der::pem::LineEnding;
use pkcs8::pkcs5::{pbes2, scrypt};
use pkcs8::{EncryptedPrivateKeyInfo, PrivateKeyInfo, SecretDocument};
use zeroize::Zeroizing;

use crate::signature::error::SignatureError;
use crate::signature::key::{MAX_KEY, PublicKey};

/// Cost of a passphrase: 2^14 rounds of 8 blocks, 5 times, as OWASP advises for scrypt. More rounds
/// would take more than the 32 MiB that OpenSSL permits, which reads these files too.
const SCRYPT: (u8, u32, u32) = (14, 8, 5);

/// Length of what scrypt gives: a key of AES-256.
const AES_KEY: usize = 32;

/// The label of a PEM block that a passphrase opens.
const ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY";

/// An ed25519 key to sign with. It is wiped when it is dropped.
pub struct PrivateKey(SigningKey);

/// How a private key is kept with a passphrase. Salt and vector are random, and never used twice.
pub struct Encryption<'a> {
    pub passphrase: &'a str,
    pub salt: [u8; 16],
    pub iv: [u8; 16],
}

// === impl PrivateKey ===

impl PrivateKey {
    /// A key from 32 random bytes.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// Read a `PRIVATE KEY` block, or with a passphrase an `ENCRYPTED PRIVATE KEY` one.
    ///
    /// # Errors
    /// There is none, it is of another kind, or the passphrase is missing or wrong.
    pub fn from_pem(text: &str, passphrase: Option<&str>) -> Result<Self, SignatureError> {
        if text.len() > MAX_KEY {
            return Err(SignatureError::Long { what: "the private key", most: MAX_KEY });
        }
        let document = SecretDocument::from_pem(text.trim_start());
        let (label, document) = document.map_err(|_| SignatureError::PrivateKey)?;
        if label != ENCRYPTED {
            return Self::from_der(document.as_bytes());
        }
        let sealed = EncryptedPrivateKeyInfo::try_from(document.as_bytes());
        let sealed = sealed.map_err(|_| SignatureError::PrivateKey)?;
        let passphrase = passphrase.ok_or(SignatureError::Encrypted)?;
        let opened = sealed.decrypt(passphrase).map_err(|_| SignatureError::Passphrase)?;
        Self::from_der(opened.as_bytes())
    }

    fn from_der(der: &[u8]) -> Result<Self, SignatureError> {
        SigningKey::from_pkcs8_der(der).map(Self).map_err(|_| SignatureError::PrivateKey)
    }

    /// The PEM block, which a passphrase closes where there is one.
    ///
    /// # Errors
    /// Encryption failed.
    pub fn to_pem(
        &self,
        encryption: Option<&Encryption<'_>>,
    ) -> Result<Zeroizing<String>, SignatureError> {
        // Without the public half: OpenSSL before 3 reads no other form.
        let pair = KeypairBytes { secret_key: self.0.to_bytes(), public_key: None };
        let der = pair.to_pkcs8_der().map_err(|_| SignatureError::PrivateKey)?;
        let (label, der) = match encryption {
            None => ("PRIVATE KEY", der),
            Some(encryption) => (ENCRYPTED, encryption.close(&der)?),
        };
        der.to_pem(label, LineEnding::LF).map_err(|_| SignatureError::PrivateKey)
    }

    pub fn public(&self) -> PublicKey {
        PublicKey::of_ed25519(self.0.verifying_key())
    }

    /// The signature of these bytes. What they are for must be in them: see [`pae`](super::pae).
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "private key of {:?}", self.public())
    }
}

// === impl Encryption ===

impl Encryption<'_> {
    fn close(&self, der: &SecretDocument) -> Result<SecretDocument, SignatureError> {
        let key =
            PrivateKeyInfo::try_from(der.as_bytes()).map_err(|_| SignatureError::PrivateKey)?;
        let (log_n, r, p) = SCRYPT;
        let params = scrypt::Params::new(log_n, r, p, AES_KEY).ok();
        let params = params.and_then(|params| {
            pbes2::Parameters::scrypt_aes256cbc(params, &self.salt, &self.iv).ok()
        });
        let params = params.ok_or(SignatureError::Encrypt)?;
        key.encrypt_with_params(params, self.passphrase).map_err(|_| SignatureError::Encrypt)
    }
}
