//! Who may run what.

use wick_package::signature::{Decision, Policy, Refusal, Request, Signature};
use wick_package::{Digest, Reason as _};

use crate::support::{IMAGE, RULES, key, name, policy, real, signed, subject};

fn digest() -> Digest {
    Digest::of(b"the image's index")
}

fn decide(image: &str, self_named: bool, signatures: &[Signature]) -> Decision {
    let image = name(image);
    let request = Request { image: &image, self_named, digest: digest() };
    policy(RULES).unwrap().decide(&request, signatures)
}

#[track_caller]
fn allowed(image: &str, signatures: &[Signature], want: &[&str]) {
    match decide(image, false, signatures) {
        Decision::Allowed { by, .. } => assert_eq!(by, want),
        Decision::Refused(refusal) => panic!("{refusal}"),
    }
}

#[track_caller]
fn refused(image: &str, signatures: &[Signature], code: &str, text: &str) {
    match decide(image, false, signatures) {
        Decision::Allowed { by, .. } => panic!("allowed by {by:?}"),
        Decision::Refused(refusal) => {
            assert_eq!(refusal.code(), code, "{refusal}");
            assert!(refusal.to_string().contains(text), "{refusal}");
        }
    }
}

/// A signature for another name, or another digest.
fn other(image: &str, digest: Digest, number: u8) -> Signature {
    Signature::sign(&subject(digest, image), &key(number))
}

#[test]
fn an_image_signed_by_a_key_of_its_rule_may_run() {
    allowed(IMAGE, &[signed(digest(), 1)], &["release"]);
    allowed(&format!("{IMAGE}:1.0.0"), &[signed(digest(), 1)], &["release"]);
    allowed(&format!("{IMAGE}:1.0.0@{}", digest()), &[signed(digest(), 1)], &["release"]);
    // Others' signatures beside it don't spoil it.
    allowed(IMAGE, &[signed(digest(), 5), signed(digest(), 1)], &["release"]);
}

#[test]
fn an_unsigned_image_may_not_run_and_the_error_says_whose_signature_is_missing() {
    refused(IMAGE, &[], "unsigned", "plus-one:latest (sha256:");
    refused(IMAGE, &[], "unsigned", "is not signed; the policy wants one by release");
}

#[test]
fn a_signature_by_another_key_does_not_count() {
    // A key of the policy, but not of the rule, and one of nobody.
    for number in [2, 5] {
        refused(IMAGE, &[signed(digest(), number)], "signature-by-another", "no key of the 1");
    }
}

#[test]
fn a_signature_for_another_digest_or_name_does_not_count() {
    let stale = other(IMAGE, Digest::of(b"an older index"), 1);
    refused(IMAGE, &[stale], "signature-for-another", "the signature is for sha256:");
    let moved = other("registry.example/vision/ocr", digest(), 1);
    refused(IMAGE, &[moved], "signature-for-another", "`registry.example/vision/ocr`");
    refused(
        &format!("{IMAGE}@{}", Digest::of(b"pinned")),
        &[signed(digest(), 1)],
        "digest-mismatch",
        "pins another digest",
    );
}

#[test]
fn a_mirror_may_serve_what_was_signed_for_its_origin() {
    allowed("mirror.example/a/plus-one", &[signed(digest(), 1)], &["release"]);
    let elsewhere = other("registry.example/audio/x", digest(), 1);
    refused("mirror.example/a/plus-one", &[elsewhere], "signature-for-another", "signed_as");
}

#[test]
fn two_signatures_are_two_keys_and_not_one_twice() {
    let secret = "registry.example/vision/secret";
    let (release, security) = (other(secret, digest(), 1), other(secret, digest(), 2));
    allowed(secret, &[release.clone(), security], &["release", "security"]);
    let later = Signature::sign(
        &wick_package::signature::Subject {
            signed_at: Some("2027-01-01T00:00:00Z".to_owned()),
            ..subject(digest(), secret)
        },
        &key(1),
    );
    let text = "has 1 signature that counts, by release; the policy wants 2 of release, security";
    refused(secret, &[release, later], "unsigned", text);
}

#[test]
fn the_first_rule_that_names_an_image_decides_and_the_default_the_rest() {
    allowed("localhost/anything", &[], &[]);
    refused("docker.io/library/x", &[signed(digest(), 1)], "policy-denies", "[[rule]]");
    let lax = policy("default = \"allow\"\n").unwrap();
    let image = name("docker.io/library/x");
    let request = Request { image: &image, self_named: false, digest: digest() };
    assert_eq!(lax.decide(&request, &[]), Decision::Allowed { by: Vec::new(), claim: None });
}

#[test]
fn an_image_can_not_name_itself_out_of_the_policy() {
    match decide("localhost/anything", true, &[]) {
        Decision::Refused(refusal) => assert!(refusal.to_string().contains("--name"), "{refusal}"),
        allowed @ Decision::Allowed { .. } => panic!("{allowed:?}"),
    }
    // Nor into the default of a policy that wants signatures of others.
    let lax = policy(&RULES.replace("\"deny\"", "\"allow\"")).unwrap();
    let image = name("stranger.example/x");
    let request = |self_named| Request { image: &image, self_named, digest: digest() };
    let refused = lax.decide(&request(true), &[]);
    assert!(matches!(refused, Decision::Refused(Refusal::SelfNamed { .. })), "{refused:?}");
    assert!(matches!(lax.decide(&request(false), &[]), Decision::Allowed { .. }));
    // One that wants none is not left.
    let open = policy("default = \"allow\"\n").unwrap();
    assert!(matches!(open.decide(&request(true), &[]), Decision::Allowed { .. }));
    // Its name with a signature for that name is as good as any.
    assert!(matches!(decide(IMAGE, true, &[signed(digest(), 1)]), Decision::Allowed { .. }));
}

#[test]
fn cosigns_signatures_count_as_ours_do() {
    let pem = String::from_utf8(real::P256.to_vec()).unwrap();
    let text = format!(
        "default = \"deny\"\n[[key]]\nname = \"ci\"\npublic_key = '''\n{pem}'''\n\
         [[rule]]\nimages = [\"127.0.0.1:5055/*\"]\nkeys = [\"ci\"]\n"
    );
    let layers = wick_package::signature::cosign_signatures(real::SIG_TAG).unwrap();
    let old = layers.into_iter().next().unwrap();
    let old = Signature::from_cosign(old, real::PAYLOAD.to_vec()).unwrap();
    let new = Signature::from_bundle(real::BUNDLE_P256).unwrap();
    let attestation = Signature::from_bundle(real::BUNDLE_ATTESTATION).unwrap();
    let image = name("127.0.0.1:5055/vision/plus-one:1.0.0");
    let request = Request { image: &image, self_named: false, digest: Digest::of(real::INDEX) };
    let strict = policy(&text).unwrap();
    let loose = policy(&format!("{text}nameless = true\n")).unwrap();
    let decide =
        |policy: &Policy, one: &Signature| policy.decide(&request, std::slice::from_ref(one));
    for policy in [&strict, &loose] {
        assert!(matches!(decide(policy, &old), Decision::Allowed { by, .. } if by == ["ci"]));
        assert!(matches!(decide(policy, &attestation), Decision::Refused(_)));
    }
    // cosign 3 signs a digest, and says no name.
    assert!(matches!(decide(&loose, &new), Decision::Allowed { by, .. } if by == ["ci"]));
    let Decision::Refused(refusal) = decide(&strict, &new) else { panic!("it is allowed") };
    assert_eq!(refusal.code(), "signature-for-another");
    assert!(refusal.to_string().contains("`nameless = true`"), "{refusal}");
}
