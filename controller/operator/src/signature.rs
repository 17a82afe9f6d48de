//! Who has signed the image of a Model: a decision over the keys of its spec and an envelope, and
//! what of a registry goes into an envelope. Nothing is fetched here.

use wick_package::signature::{
    Attached, Decision, Envelope, Policy, PublicKey, Refusal, Request, Signature, SignatureError,
    TrustedKey,
};
use wick_package::{Digest, Reference};
use wick_registry::Beside;

/// Signatures that a pod carries; an envelope takes no more.
const MAX_SIGNATURES: usize = 32;

/// The keys of a spec, one of which must have signed.
#[derive(Debug)]
pub struct Keys(Policy);

/// Why an image may not run.
#[derive(Debug, thiserror::Error)]
pub enum Unsigned {
    #[error("`spec.package.signature.keys[{index}]` is no public key: {source}")]
    Key { index: usize, source: SignatureError },
    #[error("`spec.package.signature.envelope` is no envelope: {0}")]
    Envelope(SignatureError),
    #[error("its signatures do not fit into an envelope: {0}")]
    Long(SignatureError),
    #[error(transparent)]
    Refused(Box<Refusal>),
}

// === impl Keys ===

impl Keys {
    /// # Errors
    /// One of them is no key.
    pub fn parse(keys: &[String]) -> Result<Self, Unsigned> {
        let trusted = |(index, text): (usize, &String)| {
            let key = PublicKey::from_pem(text);
            let key = key.map_err(|source| Unsigned::Key { index, source })?;
            Ok(TrustedKey { name: format!("spec.package.signature.keys[{index}]"), key })
        };
        let keys = keys.iter().enumerate().map(trusted).collect::<Result<Vec<_>, _>>()?;
        Ok(Self(Policy::any_of(keys)))
    }

    pub fn is_empty(&self) -> bool {
        self.0.keys.is_empty()
    }

    /// Whether one of them has signed an image. Without keys, nodes alone decide.
    ///
    /// # Errors
    /// None has, for this digest and under this name, or the envelope is none.
    pub fn check(
        &self,
        image: &Reference,
        digest: Digest,
        envelope: Option<&str>,
    ) -> Result<(), Unsigned> {
        if self.is_empty() {
            return Ok(());
        }
        let envelope = envelope.map(|text| Envelope::from_json(text.as_bytes())).transpose();
        let envelope = envelope.map_err(Unsigned::Envelope)?;
        let signatures = envelope.as_ref().map(Envelope::signatures).unwrap_or_default();
        let request = Request { image, self_named: false, digest };
        match self.0.decide(&request, signatures) {
            Decision::Allowed { .. } => Ok(()),
            Decision::Refused(refusal) => Err(Unsigned::Refused(Box::new(refusal))),
        }
    }

    /// The envelope of what a registry has: those by these keys first, then the rest, which the
    /// policy of a node may ask for. None where nobody has signed.
    ///
    /// # Errors
    /// It would be too long.
    pub fn gather(&self, digest: Digest, beside: &Beside) -> Result<Option<String>, Unsigned> {
        let (ours, others): (Vec<_>, Vec<_>) = found(digest, beside)
            .into_iter()
            .partition(|signature| signature.verify(digest, self.keys()).is_ok());
        let envelope = |signatures: Vec<Signature>| {
            let documents = beside.documents.iter().map(|bytes| bytes.to_vec()).collect();
            Envelope::new(digest, documents, signatures)
        };
        let all: Vec<_> = ours.iter().cloned().chain(others).take(MAX_SIGNATURES).collect();
        if all.is_empty() {
            return Ok(None);
        }
        let whole = match envelope(all) {
            // Whoever may push can't hide a good signature behind many.
            Err(_) if !ours.is_empty() => envelope(ours.into_iter().take(MAX_SIGNATURES).collect()),
            other => other,
        };
        whole.map(|envelope| Some(envelope.to_json())).map_err(Unsigned::Long)
    }

    fn keys(&self) -> impl Iterator<Item = &PublicKey> {
        self.0.keys.iter().map(|trusted| &trusted.key)
    }
}

/// Signatures of an image among what lies beside it. Artifacts of others are no reason to stop.
fn found(digest: Digest, beside: &Beside) -> Vec<Signature> {
    let mut found: Vec<Signature> = Vec::new();
    for (manifest, blobs) in &beside.artifacts {
        for attached in Attached::of(manifest, digest).unwrap_or_default() {
            let wanted = attached.blob().digest;
            let Some(blob) = blobs.iter().find(|blob| Digest::of(blob) == wanted) else { continue };
            let Ok(signature) = attached.read(blob.to_vec()) else { continue };
            let claims = signature.claims().unwrap_or_default();
            let ours = claims.iter().any(|claim| claim.digest == digest);
            if ours && !found.contains(&signature) {
                found.push(signature);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use wick_package::signature::{PrivateKey, Referrer, Subject};

    use super::*;

    const IMAGE: &str = "registry.example/vision/filetype";

    fn index() -> Vec<u8> {
        br#"{"schemaVersion": 2, "manifests": []}"#.to_vec()
    }

    fn private(seed: u8) -> PrivateKey {
        PrivateKey::from_seed(&[seed; 32])
    }

    fn keys(seeds: &[u8]) -> Keys {
        let keys: Vec<_> = seeds.iter().map(|seed| private(*seed).public().to_pem()).collect();
        Keys::parse(&keys).unwrap()
    }

    fn beside(signed: &[(u8, &str, Digest)]) -> Beside {
        let artifact = |(seed, image, digest): &(u8, &str, Digest)| {
            let image = image.parse().unwrap();
            let none = (None, None, None);
            let (package, version, signed_at) = none;
            let subject = Subject { digest: *digest, image, package, version, signed_at };
            let signature = Signature::sign(&subject, &private(*seed));
            let referrer = Referrer::new(&signature, &index()).unwrap();
            (referrer.manifest.into(), vec![referrer.config.into(), referrer.layer.into()])
        };
        Beside { documents: vec![index().into()], artifacts: signed.iter().map(artifact).collect() }
    }

    fn checked(keys: &Keys, beside: &Beside) -> Result<(), String> {
        let digest = Digest::of(&index());
        let envelope = keys.gather(digest, beside).unwrap();
        let image = format!("{IMAGE}@{digest}").parse().unwrap();
        keys.check(&image, digest, envelope.as_deref()).map_err(|error| error.to_string())
    }

    #[test]
    fn one_of_the_keys_must_have_signed_this_image_under_this_name() {
        let digest = Digest::of(&index());
        let other = Digest::of(b"other");
        let good = beside(&[(1, IMAGE, digest)]);
        assert_eq!(checked(&keys(&[1]), &good), Ok(()));
        assert_eq!(checked(&keys(&[7, 1]), &good), Ok(()));
        assert_eq!(checked(&keys(&[]), &beside(&[])), Ok(()), "nodes alone decide");
        let cases = [
            (beside(&[]), "is not signed"),
            (beside(&[(2, IMAGE, digest)]), "spec.package.signature.keys[0]"),
            (beside(&[(1, "registry.example/vision/other", digest)]), "is for the name"),
            (beside(&[(1, IMAGE, other)]), "is not signed"),
        ];
        for (beside, words) in cases {
            let why = checked(&keys(&[1]), &beside).unwrap_err();
            assert!(why.contains(words), "{why}");
        }
        let image: Reference = IMAGE.parse().unwrap();
        let why = keys(&[1]).check(&image, digest, Some("{}")).unwrap_err().to_string();
        assert!(why.contains("spec.package.signature.envelope"), "{why}");
        let why = Keys::parse(&["nonsense".to_owned()]).unwrap_err().to_string();
        assert!(why.contains("spec.package.signature.keys[0]"), "{why}");
    }

    #[test]
    fn pods_carry_what_others_have_signed_too_but_not_in_place_of_what_counts() {
        let digest = Digest::of(&index());
        let by = |keys: &Keys, beside: &Beside| {
            let envelope = keys.gather(digest, beside).unwrap().unwrap();
            let envelope = Envelope::from_json(envelope.as_bytes()).unwrap();
            let first = envelope.signatures()[0].is_by(&private(1).public());
            (envelope.signatures().len(), first)
        };
        let both = beside(&[(2, IMAGE, digest), (1, IMAGE, digest), (1, IMAGE, digest)]);
        assert_eq!(by(&keys(&[1]), &both), (2, true));
        assert_eq!(by(&keys(&[]), &both), (2, false));
        let names: Vec<String> = (0..40).map(|n| format!("registry.example/{n}")).collect();
        let mut crowd: Vec<_> = names.iter().map(|name| (2, name.as_str(), digest)).collect();
        crowd.push((1, IMAGE, digest));
        assert_eq!(by(&keys(&[1]), &beside(&crowd)), (MAX_SIGNATURES, true));
        // Too much for an envelope, but for what counts.
        let mut flood = beside(&crowd);
        flood.documents.push(vec![b' '; 95_000].into());
        assert_eq!(by(&keys(&[1]), &flood), (1, true));
        let why = keys(&[]).gather(digest, &flood).unwrap_err().to_string();
        assert!(why.contains("do not fit"), "{why}");
    }
}
