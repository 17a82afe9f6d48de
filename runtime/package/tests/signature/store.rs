//! The node's store of envelopes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use wick_package::signature::{Envelope, NodeStore, StoreError, read_trusted};
use wick_package::{Digest, Reason as _};

use crate::support::{chain, packed, real, signed};

/// Whoever runs the test.
fn user(of: &Path) -> u32 {
    std::os::unix::fs::MetadataExt::uid(&fs::metadata(of).unwrap())
}

fn envelope(number: u8) -> Envelope {
    let digest = Digest::of(real::INDEX);
    let documents = vec![real::INDEX.to_vec(), real::MANIFEST_AMD64.to_vec()];
    Envelope::new(digest, documents, vec![signed(digest, number)]).unwrap()
}

#[test]
fn an_envelope_is_found_by_its_image_and_by_its_package() {
    let root = tempfile::tempdir().unwrap();
    let store = NodeStore::new(root.path().join("signatures"), user(root.path()));
    let digest = Digest::of(real::INDEX);
    assert_eq!(store.get(digest).unwrap(), None);
    store.put(envelope(1)).unwrap();
    assert_eq!(store.get(digest).unwrap(), Some(envelope(1)));
    assert_eq!(store.get(Digest::of(b"x")).unwrap(), None);
    let manifest = envelope(1).files("amd64").unwrap()[0].digest("wick.toml").unwrap();
    assert_eq!(store.by_package(manifest).unwrap(), [envelope(1)]);
    assert_eq!(store.by_package(digest).unwrap(), []);
    let (_, other) = packed(root.path());
    store.put(other.clone()).unwrap();
    assert_eq!(store.get(other.digest()).unwrap(), Some(other));
}

#[test]
fn signatures_of_one_image_are_kept_together() {
    let root = tempfile::tempdir().unwrap();
    let store = NodeStore::new(root.path(), user(root.path()));
    store.put(envelope(1)).unwrap();
    store.put(envelope(2)).unwrap();
    store.put(envelope(1)).unwrap();
    let found = store.get(Digest::of(real::INDEX)).unwrap().unwrap();
    assert_eq!(found.signatures().len(), 2);
}

#[test]
fn what_others_could_have_written_is_not_read() {
    let root = tempfile::tempdir().unwrap();
    let store = NodeStore::new(root.path(), user(root.path()));
    let digest = Digest::of(real::INDEX);
    store.put(envelope(1)).unwrap();
    let file = root.path().join("sha256").join(format!("{}.json", digest.hex()));
    for path in [file.as_path(), file.parent().unwrap()] {
        let before = fs::metadata(path).unwrap().permissions();
        fs::set_permissions(path, fs::Permissions::from_mode(before.mode() | 0o020)).unwrap();
        let error = store.get(digest).unwrap_err();
        assert_eq!(error.code(), "untrusted-file");
        assert!(chain(&error).contains("chmod go-w"), "{}", chain(&error));
        fs::set_permissions(path, before).unwrap();
    }
    // Of a user that is neither root nor the one who reads.
    if user(root.path()) == 0 {
        std::os::unix::fs::chown(&file, Some(1234), None).unwrap();
        let error = store.get(digest).unwrap_err();
        assert!(chain(&error).contains("belongs to user 1234"), "{}", chain(&error));
        std::os::unix::fs::chown(&file, Some(0), None).unwrap();
    }
    assert!(store.get(digest).unwrap().is_some());
}

#[test]
fn a_damaged_envelope_is_an_error_and_is_replaced_by_a_good_one() {
    let root = tempfile::tempdir().unwrap();
    let store = NodeStore::new(root.path(), user(root.path()));
    let digest = Digest::of(real::INDEX);
    store.put(envelope(1)).unwrap();
    let file = root.path().join("sha256").join(format!("{}.json", digest.hex()));
    fs::write(&file, "{").unwrap();
    assert!(matches!(store.get(digest), Err(StoreError::Envelope { .. })));
    store.put(envelope(1)).unwrap();
    assert!(store.get(digest).unwrap().is_some());
    // One under another's name is none for it.
    let other = Digest::of(b"other");
    fs::copy(&file, file.with_file_name(format!("{}.json", other.hex()))).unwrap();
    assert_eq!(store.get(other).unwrap(), None);
}

#[test]
fn a_trusted_file_is_read_through_links_and_up_to_its_limit() {
    let root = tempfile::tempdir().unwrap();
    let user = user(root.path());
    let file = root.path().join("policy.toml");
    fs::write(&file, "default = \"deny\"").unwrap();
    let link = root.path().join("link");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    assert_eq!(read_trusted(&link, user, 100).unwrap(), "default = \"deny\"");
    assert!(read_trusted(&file, user, 5).unwrap_err().to_string().contains("longer than 5"));
    assert!(read_trusted(&root.path().join("none"), user, 5).unwrap_err().is_missing());
    assert!(!read_trusted(root.path(), user, 5).unwrap_err().is_missing());
    fs::write(&file, b"\xff").unwrap();
    assert!(read_trusted(&file, user, 5).unwrap_err().to_string().contains("UTF-8"));
}
