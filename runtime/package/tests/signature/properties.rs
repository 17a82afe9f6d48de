//! Tampered bytes never pass, and nothing that is read panics.

use std::path::Path;

use proptest::prelude::*;
use wick_package::Digest;
use wick_package::signature::{
    Decision, Envelope, Policy, PrivateKey, PublicKey, Referrer, Request, Signature,
    cosign_signatures, fallback_index, pae, referrers_of,
};

use crate::support::{IMAGE, RULES, key, name, policy, public, real, signed};

/// Documents of all kinds, to be damaged.
fn documents() -> Vec<Vec<u8>> {
    let digest = Digest::of(real::INDEX);
    let envelope = Envelope::new(digest, vec![real::INDEX.to_vec()], vec![signed(digest, 1)]);
    let rules = policy(RULES).map(|_| RULES.as_bytes().to_vec()).unwrap();
    vec![
        envelope.unwrap().to_json().into_bytes(),
        real::BUNDLE_P256.to_vec(),
        real::SIG_TAG.to_vec(),
        real::FALLBACK.to_vec(),
        real::REFERRER.to_vec(),
        real::PAYLOAD.to_vec(),
        real::P256.to_vec(),
        key(1).to_pem(None).unwrap().as_bytes().to_vec(),
        rules,
    ]
}

/// Give bytes to everything that reads.
fn read_all(bytes: &[u8]) {
    let digest = Digest::of(real::INDEX);
    if let Ok(envelope) = Envelope::from_json(bytes) {
        let _ = envelope.files("amd64");
        assert_eq!(Envelope::from_json(envelope.to_json().as_bytes()).unwrap(), envelope);
    }
    if let Ok(signature) = Signature::from_bundle(bytes) {
        let _ = signature.claims();
        let _ = signature.verify(digest, [&public(real::P256)]);
    }
    for layer in cosign_signatures(bytes).into_iter().flatten() {
        let _ = Signature::from_cosign(layer, bytes.to_vec());
    }
    let _ = referrers_of(bytes);
    let _ = Referrer::bundle_of(bytes, digest);
    let referrer = Referrer::new(&signed(digest, 1), bytes).unwrap();
    if let Ok(index) = fallback_index(Some(bytes), &referrer) {
        assert!(!referrers_of(&index).unwrap().is_empty());
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = PublicKey::from_pem(text);
        let _ = PrivateKey::from_pem(text, None);
        let _ = Policy::parse(text, Path::new("p"), &|_| Ok(text.to_owned()));
        let _ = text.parse::<wick_package::Reference>();
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        read_all(&bytes);
    }

    #[test]
    fn no_damage_makes_a_reader_panic(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
        cuts in any::<bool>(),
    ) {
        let mut documents = documents();
        let mut bytes = documents.swap_remove(which.index(documents.len()));
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if cuts {
            bytes.truncate(cut.index(bytes.len()));
        }
        read_all(&bytes);
    }

    /// Whatever is done to an envelope, it allows no other image, and this one only with a
    /// signature that is untouched.
    #[test]
    fn a_tampered_envelope_allows_nothing_that_was_not_signed(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        other in any::<bool>(),
    ) {
        let digest = Digest::of(b"image");
        let envelope = Envelope::new(digest, Vec::new(), vec![signed(digest, 1)]).unwrap();
        let mut bytes = envelope.to_json().into_bytes();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let Ok(tampered) = Envelope::from_json(&bytes) else { return Ok(()) };
        let digest = if other { tampered.digest() } else { digest };
        let image = name(IMAGE);
        let request = Request { image: &image, self_named: false, digest };
        if let Decision::Allowed { by, claim } = policy(RULES).unwrap().decide(&request, tampered.signatures()) {
            prop_assert_eq!(digest, envelope.digest());
            prop_assert_eq!(by, ["release"]);
            prop_assert_eq!(claim.unwrap().image.unwrap(), IMAGE);
        }
    }

    /// A bit anywhere in what was signed, or in the signature.
    #[test]
    fn a_flipped_bit_ends_a_signature(at in any::<prop::sample::Index>(), bit in 0..8_u8, payload: bool) {
        let digest = Digest::of(b"image");
        let bundle = signed(digest, 1).to_bundle().unwrap();
        let mut bundle: serde_json::Value = serde_json::from_slice(&bundle).unwrap();
        let place = match payload {
            true => "/dsseEnvelope/payload",
            false => "/dsseEnvelope/signatures/0/sig",
        };
        let text = bundle.pointer(place).unwrap().as_str().unwrap().to_owned();
        let mut bytes = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, text).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        let text = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, bytes);
        *bundle.pointer_mut(place).unwrap() = text.into();
        let signature = Signature::from_bundle(bundle.to_string().as_bytes()).unwrap();
        prop_assert!(signature.verify(digest, [&key(1).public()]).is_err());
    }

    /// Two pairs of type and payload never have the same encoding.
    #[test]
    fn the_encoding_is_of_one_type_and_payload(
        one in "[a-z0-9 ]{0,8}", two in "[a-z0-9 ]{0,8}",
        first in "[a-z0-9 ]{0,8}", second in "[a-z0-9 ]{0,8}",
    ) {
        let same = pae(&one, first.as_bytes()) == pae(&two, second.as_bytes());
        prop_assert_eq!(same, one == two && first == second);
    }
}
