//! Key pairs and their files.

use wick_package::Reason as _;
use wick_package::signature::{Encryption, PrivateKey, PublicKey};

use crate::support::{key, public, real};

const ENCRYPTION: Encryption<'_> =
    Encryption { passphrase: "correct horse", salt: [7; 16], iv: [9; 16] };

/// `openssl genpkey -algorithm ed25519`, and `openssl pkey -pubout` of it.
const OPENSSL: &str = "-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEIBERERERERERERERERERERERERERERERERERERERERER\n\
    -----END PRIVATE KEY-----\n";

#[test]
fn a_private_key_survives_its_file_with_and_without_a_passphrase() {
    let pair = key(3);
    let plain = pair.to_pem(None).unwrap();
    assert!(plain.starts_with("-----BEGIN PRIVATE KEY-----\n"), "{}", *plain);
    assert_eq!(PrivateKey::from_pem(&plain, None).unwrap().public(), pair.public());
    // A passphrase that nothing asks for does no harm.
    assert!(PrivateKey::from_pem(&plain, Some("unused")).is_ok());

    let closed = pair.to_pem(Some(&ENCRYPTION)).unwrap();
    assert!(closed.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----\n"), "{}", *closed);
    let opened = PrivateKey::from_pem(&closed, Some("correct horse")).unwrap();
    assert_eq!(opened.public(), pair.public());
    for wrong in [None, Some(""), Some("battery staple")] {
        let error = PrivateKey::from_pem(&closed, wrong).unwrap_err();
        assert_eq!(error.code(), "passphrase", "{error}");
    }
}

#[test]
fn keys_are_what_openssl_writes() {
    let pair = PrivateKey::from_pem(OPENSSL, None).unwrap();
    assert_eq!(pair.public(), PrivateKey::from_seed(&[0x11; 32]).public());
    assert_eq!(*pair.to_pem(None).unwrap(), OPENSSL);
    for (pem, algorithm) in [(real::ED25519, "ed25519"), (real::P256, "ecdsa-p256")] {
        let key = public(pem);
        assert_eq!(key.algorithm(), algorithm);
        assert_eq!(key.to_pem().as_bytes(), pem);
    }
}

#[test]
fn a_key_is_known_by_the_digest_of_its_public_half() {
    // `openssl pkey -pubin -in ed25519.pub -outform DER | sha256sum`
    let id = public(real::ED25519).id().to_string();
    assert_eq!(id, "sha256:1becd1a59b5cdde5ae8c1503d17b53a12f24ee42083942f33f673428403d7d66");
    assert_eq!(id.len(), "sha256:".len() + 64);
}

#[test]
fn text_round_a_public_key_and_indents_are_passed_over() {
    let pem = key(1).public().to_pem();
    let indented: String = pem.lines().map(|line| format!("    {line}\r\n")).collect();
    for text in [format!("release key\n{pem}\nmore"), indented, pem.trim_end().to_owned()] {
        assert_eq!(PublicKey::from_pem(&text).unwrap().id(), key(1).public().id(), "{text}");
    }
}

#[test]
fn what_is_no_key_is_refused_and_says_so() {
    let pem = key(1).public().to_pem();
    let weak = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEAAQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n-----END PUBLIC KEY-----\n";
    let p384 = "-----BEGIN PUBLIC KEY-----\n\
        MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAE\n-----END PUBLIC KEY-----\n";
    let cut = &pem[..pem.len() - 30];
    let private = key(1).to_pem(None).unwrap();
    let long = "x".repeat(9000);
    for text in ["", "key", weak, p384, cut, &private, &pem.replace("MCow", "MCoy"), &long] {
        let error = PublicKey::from_pem(text).unwrap_err();
        assert!(["bad-key", "bad-signature"].contains(&error.code()), "{text}: {error}");
    }
    for text in ["", pem.as_str(), "-----BEGIN PRIVATE KEY-----\n", &long] {
        assert!(PrivateKey::from_pem(text, None).is_err(), "{text}");
    }
    // A private key never reaches a log by accident.
    assert!(!format!("{:?}", key(1)).contains("PRIVATE"));
}
