//! A policy: who must have signed.

use std::io;
use std::path::Path;
use std::sync::LazyLock;

use wick_package::signature::{Decision, Otherwise, Policy, Request};
use wick_package::{Digest, Reference};

const P256: &str = include_str!("../../package/tests/signature/fixtures/p256.pub");
const ED25519: &str = include_str!("../../package/tests/signature/fixtures/ed25519.pub");

/// Images that are asked about.
static IMAGES: LazyLock<Vec<Reference>> = LazyLock::new(|| {
    let names = ["registry.example/vision/filetype:1", "localhost/a:1", "docker.io/library/a:1"];
    names.iter().map(|name| name.parse().expect("it is a name")).collect()
});

/// Bytes that are a policy have rules that can be met, and without a signature let nothing run
/// that wants one; bytes that are none have a mistake that is told.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let load = |file: &str| match file {
        "p256.pub" => Ok(P256.to_owned()),
        "ed25519.pub" => Ok(ED25519.to_owned()),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    let policy = match Policy::parse(text, Path::new("policy.toml"), &load) {
        Ok(policy) => policy,
        Err(errors) => {
            assert!(!errors.mistakes().is_empty() && !errors.to_string().is_empty());
            return;
        }
    };
    for rule in &policy.rules {
        assert!(rule.min <= rule.keys.len() && !rule.images.is_empty(), "{rule:?}");
        assert!(rule.min > 0 || rule.keys.is_empty(), "keys that nobody needs: {rule:?}");
        assert_eq!(policy.key_names(rule).len(), rule.keys.len(), "a key that is not there");
    }
    for image in IMAGES.iter() {
        let request = Request { image, self_named: false, digest: Digest::of(b"image") };
        if let Decision::Allowed { .. } = policy.decide(&request, &[]) {
            let free = match policy.rule(&image.name()) {
                Some(rule) => rule.min == 0,
                None => policy.default == Otherwise::Allow,
            };
            assert!(free, "{image} runs without a signature");
        }
    }
}
