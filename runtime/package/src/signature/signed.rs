//! One signature, of any form that is read, and what it claims.

use std::collections::BTreeSet;

use crate::digest::Digest;
use crate::signature::bundle::Bundle;
use crate::signature::cosign::{self, CosignLayer, Simple};
use crate::signature::dsse::MAX_PAYLOAD;
use crate::signature::error::SignatureError;
use crate::signature::key::{KeyId, PublicKey};
use crate::signature::private_key::PrivateKey;
use crate::signature::statement;
use crate::signature::subject::Subject;

/// A signed statement about an image. Nothing of it holds before [`Signature::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature(pub(super) Form);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form {
    /// Ours, and what cosign writes since 3.0.
    Bundle(Bundle),
    /// What cosign wrote before.
    Simple(Simple),
}

/// What a signature says of an image.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Claim {
    pub digest: Digest,
    /// The repository, where it names one.
    pub image: Option<String>,
    pub package: Option<String>,
    pub version: Option<String>,
    pub signed_at: Option<String>,
}

// === impl Signature ===

impl Signature {
    /// Sign.
    pub fn sign(subject: &Subject, key: &PrivateKey) -> Self {
        let payload = statement::write(subject);
        Self(Form::Bundle(Bundle::sign(statement::PAYLOAD_TYPE, payload, key)))
    }

    /// Read a bundle, as a referrer's layer holds it.
    ///
    /// # Errors
    /// It is no bundle, or one of a form that is not read.
    pub fn from_bundle(bytes: &[u8]) -> Result<Self, SignatureError> {
        Bundle::from_json(bytes).map(|bundle| Self(Form::Bundle(bundle)))
    }

    /// A signature of cosign 1 or 2, with the payload that was fetched for it.
    ///
    /// # Errors
    /// The payload is another.
    pub fn from_cosign(layer: CosignLayer, payload: Vec<u8>) -> Result<Self, SignatureError> {
        if payload.len() > MAX_PAYLOAD {
            let what = "the payload of cosign's signature";
            return Err(SignatureError::Long { what, most: MAX_PAYLOAD });
        }
        let got = Digest::of(&payload);
        if got != layer.payload {
            let text = format!("its payload is {got} instead of {}", layer.payload);
            return Err(SignatureError::Foreign(text));
        }
        Ok(Self(Form::Simple(Simple { payload, signature: layer.signature })))
    }

    /// The bundle, as it is stored; none for a signature of cosign 1 or 2, which stays where it is.
    pub fn to_bundle(&self) -> Option<Vec<u8>> {
        match &self.0 {
            Form::Bundle(bundle) => Some(bundle.to_json()),
            Form::Simple(_) => None,
        }
    }

    /// Which of these keys have signed `digest`, and what they say of it.
    ///
    /// # Errors
    /// None of them has, or what they signed is something else.
    pub fn verify<'a>(
        &self,
        digest: Digest,
        keys: impl IntoIterator<Item = &'a PublicKey>,
    ) -> Result<(Claim, BTreeSet<KeyId>), SignatureError> {
        let mut tried = 0;
        let keys = keys.into_iter().inspect(|_| tried += 1);
        let by: BTreeSet<_> = keys.filter(|key| self.is_by(key)).map(PublicKey::id).collect();
        if by.is_empty() {
            return Err(SignatureError::OtherKey { tried });
        }
        let claims = self.claims()?;
        let signed = || {
            let digests: Vec<_> = claims.iter().map(|claim| claim.digest.to_string()).collect();
            digests.join(", ")
        };
        let claim = claims.iter().find(|claim| claim.digest == digest);
        let other = || SignatureError::OtherDigest { wanted: digest, signed: signed() };
        Ok((claim.cloned().ok_or_else(other)?, by))
    }

    /// What it says, whoever has signed it: for people, and never for a decision.
    ///
    /// # Errors
    /// It is about something else than images.
    pub fn claims(&self) -> Result<Vec<Claim>, SignatureError> {
        match &self.0 {
            Form::Bundle(bundle) => {
                statement::read(&bundle.dsse.payload_type, &bundle.dsse.payload)
            }
            Form::Simple(simple) => cosign::read(&simple.payload).map(|claim| vec![claim]),
        }
    }

    /// Which key it says to be by, where it says so: for people, and never for a decision.
    pub fn key_hint(&self) -> Option<KeyId> {
        match &self.0 {
            Form::Bundle(bundle) => bundle.key_hint(),
            Form::Simple(_) => None,
        }
    }

    /// `sigstore-bundle` or `simple-signing`.
    pub fn form(&self) -> &'static str {
        match &self.0 {
            Form::Bundle(_) => "sigstore-bundle",
            Form::Simple(_) => "simple-signing",
        }
    }

    /// Whether this key has made it, whatever it says.
    pub fn is_by(&self, key: &PublicKey) -> bool {
        match &self.0 {
            Form::Bundle(bundle) => bundle.dsse.is_by(key),
            Form::Simple(simple) => key.verifies(&simple.payload, &simple.signature),
        }
    }
}
