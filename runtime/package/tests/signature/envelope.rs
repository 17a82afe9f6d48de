//! What travels with an image.

use wick_package::signature::{
    ContentsError, Envelope, MAX_ENVELOPE, Signature, cosign_signatures,
};
use wick_package::{Digest, Reason as _};

use crate::support::{key, packed, public, real, signed};

fn documents() -> Vec<Vec<u8>> {
    [real::INDEX, real::MANIFEST_AMD64, real::MANIFEST_ARM64].map(<[u8]>::to_vec).into()
}

/// All forms of signatures in one envelope.
fn mixed() -> Envelope {
    let digest = Digest::of(real::INDEX);
    let layer = cosign_signatures(real::SIG_TAG).unwrap().remove(0);
    let signatures = vec![
        signed(digest, 1),
        signed(digest, 2),
        Signature::from_bundle(real::BUNDLE_P256).unwrap(),
        Signature::from_cosign(layer, real::PAYLOAD.to_vec()).unwrap(),
    ];
    Envelope::new(digest, documents(), signatures).unwrap()
}

#[test]
fn an_envelope_survives_its_text_and_fits_an_annotation() {
    let envelope = mixed();
    let text = envelope.to_json();
    assert_eq!(Envelope::from_json(text.as_bytes()).unwrap(), envelope);
    assert!(!text.contains('\n') && text.len() < MAX_ENVELOPE, "{}", text.len());
    let digest = envelope.digest();
    for (signature, pem) in envelope.signatures().iter().zip([
        key(1).public(),
        key(2).public(),
        public(real::P256),
        public(real::P256),
    ]) {
        signature.verify(digest, [&pem]).unwrap();
    }
}

#[test]
fn envelopes_of_one_image_are_joined_and_of_two_are_not() {
    let digest = Digest::of(real::INDEX);
    let one = Envelope::new(digest, Vec::new(), vec![signed(digest, 9)]).unwrap();
    let both = mixed().merged(one.clone()).unwrap();
    assert_eq!(both.signatures().len(), 5);
    assert_eq!(both.clone().merged(one).unwrap(), both);
    let other = Envelope::new(Digest::of(b"x"), Vec::new(), Vec::new()).unwrap();
    assert_eq!(both.merged(other).unwrap_err().code(), "signature-for-another");
}

#[test]
fn documents_lead_from_the_digest_to_the_files() {
    for architecture in ["amd64", "arm64"] {
        let files = mixed().files(architecture).unwrap();
        let [files] = files.as_slice() else { panic!("{files:?}") };
        assert_eq!(files.digest("model.onnx"), Some(Digest::of(b"weights")));
        let paths: Vec<_> = files.iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["model.onnx", "wick.toml"]);
    }
    let error = mixed().files("riscv64").unwrap_err();
    assert!(matches!(error, ContentsError::Platform(_)), "{error}");
}

#[test]
fn a_packed_package_lists_its_files() {
    let root = tempfile::tempdir().unwrap();
    let (_, envelope) = packed(root.path());
    let files = envelope.files("amd64").unwrap();
    assert_eq!(files[0].digest("model.onnx"), Some(Digest::of(b"weights")));
    assert!(files[0].digest("wick.toml").is_some());
}

#[test]
fn a_document_that_is_missing_or_changed_leads_nowhere() {
    let digest = Digest::of(real::INDEX);
    for leave in 0..2 {
        let mut documents = documents();
        documents.remove(leave);
        let error =
            Envelope::new(digest, documents, Vec::new()).unwrap().files("amd64").unwrap_err();
        assert_eq!(error.code(), "no-documents", "{error}");
    }
    for change in 0..2 {
        let mut documents = documents();
        *documents[change].last_mut().unwrap() = b' ';
        let error =
            Envelope::new(digest, documents, Vec::new()).unwrap().files("amd64").unwrap_err();
        assert_eq!(error.code(), "no-documents", "{error}");
    }
}

#[test]
fn an_image_that_does_not_list_its_files_says_so() {
    let manifest = String::from_utf8(real::MANIFEST_AMD64.to_vec()).unwrap();
    let manifest = manifest.replacen("dev.wick.files", "dev.wick.filez", 1).into_bytes();
    let digest = Digest::of(&manifest);
    let envelope = Envelope::new(digest, vec![manifest], Vec::new()).unwrap();
    let error = envelope.files("amd64").unwrap_err();
    assert!(matches!(error, ContentsError::Unlisted(_)), "{error}");
    assert!(error.to_string().contains("wick pack"), "{error}");
}

#[test]
fn what_is_too_long_or_too_many_is_refused() {
    let digest = Digest::of(b"x");
    let long = vec![vec![b'x'; MAX_ENVELOPE]];
    assert!(Envelope::new(digest, long, Vec::new()).is_err());
    assert!(Envelope::new(digest, vec![Vec::new(); 17], Vec::new()).is_err());
    assert!(Envelope::new(digest, Vec::new(), vec![signed(digest, 1); 33]).is_err());
    assert!(Envelope::from_json(&vec![b' '; MAX_ENVELOPE + 1]).is_err());
    for text in ["", "{}", "[]", "{\"mediaType\":\"x\"}", "null"] {
        assert!(Envelope::from_json(text.as_bytes()).is_err(), "{text}");
    }
}
