//! What travels with an image for whoever must check it without a network: its signatures, and
//! the documents that lead from the signed digest to the digests of its files.

use crate::digest::Digest;
use crate::signature::bundle::{self, Bundle};
use crate::signature::cosign::Simple;
use crate::signature::dsse;
use crate::signature::error::SignatureError;
use crate::signature::signed::{Form, Signature};

/// The media type of an envelope, which is a field of it.
pub const ENVELOPE_TYPE: &str = "application/vnd.wick.envelope.v1+json";

/// Longest envelope. It is an annotation of a pod, and all of those together have 256 KiB.
pub const MAX_ENVELOPE: usize = 128 << 10;

/// Most signatures of one image; each costs a verification for each key.
const MAX_SIGNATURES: usize = 32;

/// Most documents: an index, and a manifest for each platform.
const MAX_DOCUMENTS: usize = 16;

/// Signatures of one image, and its documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    digest: Digest,
    /// In the order of the way from the digest to the files. Their digests are checked where
    /// they are used.
    pub(super) documents: Vec<Vec<u8>>,
    signatures: Vec<Signature>,
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Text {
    media_type: String,
    digest: Digest,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    documents: Vec<String>,
    signatures: Vec<SignatureText>,
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum SignatureText {
    Bundle(bundle::Text),
    Cosign { payload: String, signature: String },
}

/// Enough to see which kind of document it is.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    media_type: String,
}

// === impl Envelope ===

impl Envelope {
    /// An envelope for the image with this digest.
    ///
    /// # Errors
    /// It would be longer than an annotation may be, or have too many parts.
    pub fn new(
        digest: Digest,
        documents: Vec<Vec<u8>>,
        signatures: Vec<Signature>,
    ) -> Result<Self, SignatureError> {
        let envelope = Self { digest, documents, signatures }.checked()?;
        match envelope.to_json().len() {
            0..=MAX_ENVELOPE => Ok(envelope),
            _ => Err(SignatureError::Long { what: "an envelope", most: MAX_ENVELOPE }),
        }
    }

    /// Read an envelope; a bare bundle, as cosign writes it to a file, is one without documents.
    ///
    /// # Errors
    /// It is neither, or too long, or has too many parts.
    pub fn from_json(bytes: &[u8]) -> Result<Self, SignatureError> {
        if bytes.len() > MAX_ENVELOPE {
            return Err(SignatureError::Long { what: "an envelope", most: MAX_ENVELOPE });
        }
        let json = |source| SignatureError::Json { what: "an envelope", source };
        let kind: Kind = serde_json::from_slice(bytes).map_err(json)?;
        if bundle::is_bundle(&kind.media_type) {
            return Self::of_bundle(bytes);
        }
        if kind.media_type != ENVELOPE_TYPE {
            let kind: String = kind.media_type.chars().take(100).collect();
            let text = format!("its media type is `{}`", kind.escape_debug());
            return Err(SignatureError::Foreign(text));
        }
        let text: Text = serde_json::from_slice(bytes).map_err(json)?;
        let documents = text.documents.iter().map(|text| dsse::decode(text, "a document"));
        let documents = documents.collect::<Result<_, _>>()?;
        let signatures = text.signatures.into_iter().map(SignatureText::read);
        let signatures = signatures.collect::<Result<_, _>>()?;
        Self { digest: text.digest, documents, signatures }.checked()
    }

    fn of_bundle(bytes: &[u8]) -> Result<Self, SignatureError> {
        let signature = Signature::from_bundle(bytes)?;
        let claims = signature.claims()?;
        let none = || SignatureError::Foreign("its statement names no SHA-256".to_owned());
        let digest = claims.first().ok_or_else(none)?.digest;
        Ok(Self { digest, documents: Vec::new(), signatures: vec![signature] })
    }

    fn checked(self) -> Result<Self, SignatureError> {
        let many = |count, parts, most| {
            Err(SignatureError::Many { what: "an envelope", count, parts, most })
        };
        match (self.documents.len(), self.signatures.len()) {
            (count, _) if count > MAX_DOCUMENTS => many(count, "documents", MAX_DOCUMENTS),
            (_, count) if count > MAX_SIGNATURES => many(count, "signatures", MAX_SIGNATURES),
            _ => Ok(self),
        }
    }

    /// One line of JSON: a file, and the value of an annotation.
    pub fn to_json(&self) -> String {
        let text = Text {
            media_type: ENVELOPE_TYPE.to_owned(),
            digest: self.digest,
            documents: self.documents.iter().map(|bytes| dsse::encode(bytes)).collect(),
            signatures: self.signatures.iter().map(SignatureText::of).collect(),
        };
        serde_json::to_string(&text).expect("an envelope has text keys and no failing parts")
    }

    /// The signatures and documents of both, each once.
    ///
    /// # Errors
    /// They are for different images, or too many together.
    pub fn merged(mut self, other: Self) -> Result<Self, SignatureError> {
        if other.digest != self.digest {
            let signed = other.digest.to_string();
            return Err(SignatureError::OtherDigest { wanted: self.digest, signed });
        }
        for signature in other.signatures {
            if !self.signatures.contains(&signature) {
                self.signatures.push(signature);
            }
        }
        for document in other.documents {
            if !self.documents.contains(&document) {
                self.documents.push(document);
            }
        }
        Self::new(self.digest, self.documents, self.signatures)
    }

    /// The image that it says it is for. Signatures and documents have digests of their own,
    /// which must lead to the same.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }
}

// === impl SignatureText ===

impl SignatureText {
    fn of(signature: &Signature) -> Self {
        match &signature.0 {
            Form::Bundle(bundle) => Self::Bundle(bundle.to_text()),
            Form::Simple(simple) => Self::Cosign {
                payload: dsse::encode(&simple.payload),
                signature: dsse::encode(&simple.signature),
            },
        }
    }

    fn read(self) -> Result<Signature, SignatureError> {
        Ok(Signature(match self {
            Self::Bundle(text) => Form::Bundle(Bundle::from_text(text)?),
            Self::Cosign { payload, signature } => Form::Simple(Simple {
                payload: dsse::decode(&payload, "the payload of cosign's signature")?,
                signature: dsse::decode(&signature, "a signature of cosign")?,
            }),
        }))
    }
}
