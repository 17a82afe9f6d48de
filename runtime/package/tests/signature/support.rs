//! Keys, images and policies for the tests, and what the real cosign has made.

use std::path::Path;

use wick_package::pack::{Format, Options, write_layout};
use wick_package::signature::{Envelope, Policy, PrivateKey, PublicKey, Signature, Subject};
use wick_package::{Digest, ManifestErrors, Package, Reference};

pub const IMAGE: &str = "registry.example/vision/plus-one";

/// Made by cosign 3.1.3 (`go install github.com/sigstore/cosign/v3/cmd/cosign`) and Debian's
/// docker-registry 2.8.2 on 127.0.0.1:5055, for an index of two manifests:
///
/// ```text
/// cosign generate-key-pair                                # p256.pub
/// cosign import-key-pair --key ed.pem                     # ed25519.pub, of `openssl genpkey`
/// cosign sign --key K --use-signing-config=false --tlog-upload=false --new-bundle-format=false
///     127.0.0.1:5055/vision/plus-one@sha256:3267…         # sig-tag.json, payload.json
/// cosign sign … --new-bundle-format=true …                # fallback.json, bundle-*.json
/// cosign attest --key K --type custom --predicate {} …    # bundle-attestation.json
/// ```
///
/// For tests with registries the rest of the image is here too, and what cosign's manifest has for
/// a config: `layer-*.tar` (of Python's `tarfile`), `config-*.json` and `sig-config.json`.
pub mod real {
    macro_rules! fixture {
        ($name:ident, $file:literal) => {
            pub const $name: &[u8] = include_bytes!(concat!("fixtures/", $file));
        };
    }
    fixture!(INDEX, "index.json");
    fixture!(MANIFEST_AMD64, "manifest-amd64.json");
    fixture!(MANIFEST_ARM64, "manifest-arm64.json");
    fixture!(P256, "p256.pub");
    fixture!(ED25519, "ed25519.pub");
    fixture!(SIG_TAG, "sig-tag.json");
    fixture!(PAYLOAD, "payload.json");
    fixture!(FALLBACK, "fallback.json");
    fixture!(REFERRER, "referrer.json");
    fixture!(BUNDLE_P256, "bundle-p256.json");
    fixture!(BUNDLE_ED25519, "bundle-ed25519.json");
    fixture!(BUNDLE_ATTESTATION, "bundle-attestation.json");
}

pub fn public(pem: &[u8]) -> PublicKey {
    PublicKey::from_pem(std::str::from_utf8(pem).unwrap()).unwrap()
}

/// The same key for the same number.
pub fn key(number: u8) -> PrivateKey {
    PrivateKey::from_seed(&[number; 32])
}

pub fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

pub fn subject(digest: Digest, image: &str) -> Subject {
    Subject {
        digest,
        image: name(image),
        package: Some("plus-one".to_owned()),
        version: Some("1.0.0".to_owned()),
        signed_at: Some("2026-11-27T10:00:00Z".to_owned()),
    }
}

/// A signature for [`IMAGE`].
pub fn signed(digest: Digest, number: u8) -> Signature {
    Signature::sign(&subject(digest, IMAGE), &key(number))
}

/// A policy whose text has `{1}`, `{2}`, … for keys of these numbers, in PEM.
pub fn policy(text: &str) -> Result<Policy, ManifestErrors> {
    let text = (0..10).fold(text.to_owned(), |text, number| {
        let pem = key(number).public().to_pem();
        text.replace(&format!("{{{number}}}"), &format!("'''\n{pem}'''"))
    });
    Policy::parse(&text, Path::new("policy.toml"), &|_| Err(std::io::ErrorKind::NotFound.into()))
}

/// Two keys, and rules for images that need one, both, or none.
pub const RULES: &str = r#"
default = "deny"
[[key]]
name = "release"
public_key = {1}
[[key]]
name = "security"
public_key = {2}
[[rule]]
images = ["registry.example/vision/secret"]
keys = ["release", "security"]
min = 2
[[rule]]
images = ["registry.example/vision/*"]
keys = ["release"]
[[rule]]
images = ["mirror.example/*"]
keys = ["release"]
signed_as = ["registry.example/vision/*"]
[[rule]]
images = ["localhost/*"]
unsigned = true
"#;

/// A packed package, and its envelope without signatures.
pub fn packed(root: &Path) -> (std::path::PathBuf, Envelope) {
    let (dir, out) = (root.join("package"), root.join("layout"));
    std::fs::create_dir_all(&dir).unwrap();
    let manifest = "[package]\nname = \"plus-one\"\nversion = \"1.0.0\"\n\
        [[graph]]\nname = \"g\"\npath = \"model.onnx\"\n";
    std::fs::write(dir.join("wick.toml"), manifest).unwrap();
    std::fs::write(dir.join("model.onnx"), "weights").unwrap();
    let package = Package::open(&dir).unwrap();
    let options = Options { format: Format::Folder, reference: None };
    let packed = write_layout(&package, &out, &options, &mut |_| {}).unwrap();
    let blobs = std::fs::read_dir(out.join("blobs/sha256")).unwrap();
    let documents = blobs.map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
    let documents = documents.filter(|bytes| bytes.starts_with(b"{\"annotations\"")).collect();
    (out, Envelope::new(packed.digest, documents, Vec::new()).unwrap())
}
