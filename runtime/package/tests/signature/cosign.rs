//! Signatures that the real cosign has made, and ours in its form.

use serde_json::Value;
use wick_package::signature::{
    Attached, Envelope, Referrer, Signature, cosign_signatures, cosign_tag, fallback_index,
    fallback_tag, referrers_of,
};
use wick_package::{Digest, Reason as _};

use crate::support::{IMAGE, key, public, real, signed};

fn digest() -> Digest {
    Digest::of(real::INDEX)
}

/// cosign's two signatures of the older form.
fn simple() -> [Signature; 2] {
    let layers = cosign_signatures(real::SIG_TAG).unwrap();
    let read = |layer| Signature::from_cosign(layer, real::PAYLOAD.to_vec()).unwrap();
    layers.into_iter().map(read).collect::<Vec<_>>().try_into().unwrap()
}

#[test]
fn signatures_under_the_tag_of_cosign_2_are_verified() {
    let (p256, ed25519) = (public(real::P256), public(real::ED25519));
    for (signature, key) in simple().iter().zip([&p256, &ed25519]) {
        let (claim, by) = signature.verify(digest(), [key]).unwrap();
        assert_eq!(by.into_iter().collect::<Vec<_>>(), [key.id()]);
        assert_eq!(claim.image.as_deref(), Some("127.0.0.1:5055/vision/plus-one"));
        let other = Digest::of(b"another image");
        let error = signature.verify(other, [key]).unwrap_err();
        assert_eq!(error.code(), "signature-for-another", "{error}");
    }
    let error = simple()[0].verify(digest(), [&ed25519]).unwrap_err();
    assert_eq!(error.code(), "signature-by-another");
}

#[test]
fn bundles_of_cosign_3_are_verified() {
    for (bundle, key) in [(real::BUNDLE_P256, real::P256), (real::BUNDLE_ED25519, real::ED25519)] {
        let signature = Signature::from_bundle(bundle).unwrap();
        let (claim, by) = signature.verify(digest(), [&public(key)]).unwrap();
        assert_eq!((claim.digest, by.len()), (digest(), 1));
        let error = signature.verify(Digest::of(b"x"), [&public(key)]).unwrap_err();
        assert_eq!(error.code(), "signature-for-another");
        // As `cosign sign --bundle` leaves it in a file.
        assert_eq!(Envelope::from_json(bundle).unwrap().digest(), digest());
    }
}

#[test]
fn an_attestation_by_the_same_key_approves_nothing() {
    let signature = Signature::from_bundle(real::BUNDLE_ATTESTATION).unwrap();
    let error = signature.verify(digest(), [&public(real::P256)]).unwrap_err();
    assert_eq!(error.code(), "signature-for-another");
    assert!(error.to_string().contains("for other content"), "{error}");
}

#[test]
fn a_payload_that_was_exchanged_is_refused() {
    let layer = cosign_signatures(real::SIG_TAG).unwrap().remove(0);
    let text = String::from_utf8(real::PAYLOAD.to_vec()).unwrap();
    let other = text.replace("plus-one", "plus-two").into_bytes();
    let error = Signature::from_cosign(layer, other).unwrap_err();
    assert_eq!(error.code(), "signature-for-another");
}

#[test]
fn what_cosign_lists_behind_the_fallback_tag_is_found() {
    let listed = referrers_of(real::FALLBACK).unwrap();
    assert_eq!(listed.len(), 3);
    let referrer = &listed[0];
    assert_eq!(referrer.digest, Digest::of(real::REFERRER));
    let bundle = Referrer::bundle_of(real::REFERRER, digest()).unwrap().unwrap();
    assert_eq!(bundle.digest, Digest::of(real::BUNDLE_ATTESTATION));
    // Listed for one image, and about another.
    assert_eq!(Referrer::bundle_of(real::REFERRER, Digest::of(b"x")).unwrap(), None);
}

#[test]
fn our_referrer_has_cosigns_form() {
    let referrer = Referrer::new(&signed(digest(), 1), real::INDEX).unwrap();
    let ours: Value = serde_json::from_slice(&referrer.manifest).unwrap();
    let theirs: Value = serde_json::from_slice(real::REFERRER).unwrap();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&ours), keys(&theirs));
    for field in ["subject", "artifactType", "schemaVersion", "mediaType"] {
        assert_eq!(ours[field], theirs[field], "{field}");
    }
    assert_eq!(ours["config"]["digest"], Digest::of(&referrer.config).to_string());
    assert_eq!(ours["layers"][0]["digest"], Digest::of(&referrer.layer).to_string());
    assert_eq!(ours["annotations"]["org.opencontainers.image.created"], "2026-11-27T10:00:00Z");

    let bundle = Referrer::bundle_of(&referrer.manifest, digest()).unwrap().unwrap();
    assert_eq!(bundle.digest, Digest::of(&referrer.layer));
    let signature = Signature::from_bundle(&referrer.layer).unwrap();
    let (claim, _) = signature.verify(digest(), [&key(1).public()]).unwrap();
    assert_eq!(claim.image.as_deref(), Some(IMAGE));
    assert_eq!(Referrer::new(&simple()[0], real::INDEX), None);
}

#[test]
fn a_platforms_manifest_is_a_subject_too() {
    let digest = Digest::of(real::MANIFEST_AMD64);
    let referrer = Referrer::new(&signed(digest, 1), real::MANIFEST_AMD64).unwrap();
    let manifest: Value = serde_json::from_slice(&referrer.manifest).unwrap();
    assert_eq!(manifest["subject"]["mediaType"], "application/vnd.oci.image.manifest.v1+json");
}

#[test]
fn the_fallback_index_keeps_what_others_have_listed() {
    let ours = Referrer::new(&signed(digest(), 1), real::INDEX).unwrap();
    let index = fallback_index(Some(real::FALLBACK), &ours).unwrap();
    let (before, after): (Value, Value) =
        (serde_json::from_slice(real::FALLBACK).unwrap(), serde_json::from_slice(&index).unwrap());
    let (before, after) = (before["manifests"].as_array().unwrap(), after["manifests"].as_array());
    assert_eq!(after.unwrap()[..3], before[..]);
    assert_eq!(referrers_of(&index).unwrap()[3].digest, Digest::of(&ours.manifest));
    // Pushing it again lists it once.
    assert_eq!(fallback_index(Some(&index), &ours).unwrap(), index);
    assert_eq!(referrers_of(&fallback_index(None, &ours).unwrap()).unwrap().len(), 1);
    assert!(fallback_index(Some(b"<html>"), &ours).is_err());
}

#[test]
fn tags_are_those_of_the_specifications() {
    let hex = digest().hex();
    assert_eq!(fallback_tag(digest()), format!("sha256-{hex}"));
    assert_eq!(cosign_tag(digest()), format!("sha256-{hex}.sig"));
}

#[test]
fn an_artifact_leads_to_its_signatures_in_either_form() {
    let payloads = Attached::of(real::SIG_TAG, digest()).unwrap();
    let read = |one: Attached| one.read(real::PAYLOAD.to_vec()).unwrap();
    assert!(payloads.iter().all(|one| one.blob().digest == Digest::of(real::PAYLOAD)));
    assert_eq!(payloads.into_iter().map(read).collect::<Vec<_>>(), simple());

    let ours = Referrer::new(&signed(digest(), 1), real::INDEX).unwrap();
    let [bundle] = Attached::of(&ours.manifest, digest()).unwrap().try_into().unwrap();
    assert_eq!(bundle.blob().digest, Digest::of(&ours.layer));
    assert_eq!(bundle.read(ours.layer).unwrap(), signed(digest(), 1));
    // What is about another image has none for this one.
    assert_eq!(Attached::of(&ours.manifest, Digest::of(b"x")).unwrap(), []);
    assert!(Attached::of(b"<html>", digest()).is_err());
}

#[test]
fn a_bundle_says_which_key_has_made_it_and_the_older_form_does_not() {
    let of = |bundle| Signature::from_bundle(bundle).unwrap().key_hint();
    assert_eq!(of(real::BUNDLE_P256), Some(public(real::P256).id()));
    assert_eq!(of(real::BUNDLE_ED25519), Some(public(real::ED25519).id()));
    assert_eq!(signed(digest(), 1).key_hint(), Some(key(1).public().id()));
    assert_eq!(simple()[0].key_hint(), None);
}
