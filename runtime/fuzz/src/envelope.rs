//! An envelope of signatures, as a file, a pod's annotation or a registry brings it to whoever must
//! decide by it.

use std::path::Path;
use std::sync::LazyLock;

use wick_package::signature::{Decision, Envelope, MAX_ENVELOPE, Policy, Request};
use wick_package::{Digest, Reference};

/// The only image that was signed with the keys below, by the real cosign.
const INDEX: &[u8] = include_bytes!("../../package/tests/signature/fixtures/index.json");
const P256: &str = include_str!("../../package/tests/signature/fixtures/p256.pub");
const ED25519: &str = include_str!("../../package/tests/signature/fixtures/ed25519.pub");

/// Any name may be signed by either key, with a name in the signature or without.
const RULES: &str = r#"
default = "deny"
[[key]]
name = "p256"
file = "p256.pub"
[[key]]
name = "ed25519"
file = "ed25519.pub"
[[rule]]
images = ["*"]
keys = ["p256", "ed25519"]
signed_as = ["*"]
nameless = true
"#;

static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    let load = |file: &str| Ok(if file == "p256.pub" { P256 } else { ED25519 }.to_owned());
    Policy::parse(RULES, Path::new("policy.toml"), &load).expect("the policy is right")
});

static IMAGE: LazyLock<Reference> =
    LazyLock::new(|| "registry.example/vision/plus-one:1".parse().expect("it is a name"));

/// Whatever an envelope says, it is written as it was read, and it permits no image that the
/// keys have not signed.
pub fn check(data: &[u8]) {
    let Ok(envelope) = Envelope::from_json(data) else { return };
    let text = envelope.to_json();
    // A bare bundle becomes longer.
    if text.len() <= MAX_ENVELOPE {
        let again = Envelope::from_json(text.as_bytes());
        assert_eq!(again.ok().as_ref(), Some(&envelope), "another one is read back");
    }
    for architecture in ["amd64", "arm64"] {
        for files in envelope.files(architecture).into_iter().flatten() {
            assert!(files.iter().all(|(path, digest)| files.digest(path) == Some(digest)));
        }
    }
    for signature in envelope.signatures() {
        // What it says does not matter before it was verified; it must be readable, or not.
        _ = signature.claims();
    }
    let digest = envelope.digest();
    let request = Request { image: &IMAGE, self_named: false, digest };
    if let Decision::Allowed { by, claim } = POLICY.decide(&request, envelope.signatures()) {
        assert_eq!(digest, Digest::of(INDEX), "nobody has signed that");
        assert!(!by.is_empty() && claim.is_some_and(|claim| claim.digest == digest));
    }
}
