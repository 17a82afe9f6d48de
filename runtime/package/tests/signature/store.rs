//! The node's store of envelopes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Barrier;

use wick_package::signature::{Envelope, NodeStore, StoreError, is_absent, read_trusted};
use wick_package::{Digest, Reason as _, error_text};

use crate::support::{packed, real, signed};

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
    assert_eq!(store.by_package(manifest).unwrap().envelopes, [envelope(1)]);
    assert_eq!(store.by_package(digest).unwrap().envelopes, []);
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
fn of_many_writers_at_once_none_loses_a_signature() {
    const WRITERS: u8 = 8;
    let root = tempfile::tempdir().unwrap();
    // Each round begins with nothing, and all begin together.
    for round in 0..20 {
        let folder = root.path().join(round.to_string());
        let barrier = Barrier::new(WRITERS.into());
        std::thread::scope(|scope| {
            for number in 1..=WRITERS {
                let (folder, barrier) = (&folder, &barrier);
                let user = user(root.path());
                scope.spawn(move || {
                    let (store, mine) = (NodeStore::new(folder, user), envelope(number));
                    barrier.wait();
                    store.put(mine).unwrap();
                });
            }
        });
        let store = NodeStore::new(&folder, user(root.path()));
        let found = store.get(Digest::of(real::INDEX)).unwrap().unwrap();
        assert_eq!(found.signatures().len(), usize::from(WRITERS), "round {round}");
    }
    let lock = fs::metadata(root.path().join("0/lock")).unwrap();
    assert_eq!(lock.permissions().mode() & 0o777, 0o600, "others can't keep writers waiting");
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
        assert!(error_text(&error).contains("chmod go-w"), "{}", error_text(&error));
        fs::set_permissions(path, before).unwrap();
    }
    // Of a user that is neither root nor the one who reads.
    if user(root.path()) == 0 {
        std::os::unix::fs::chown(&file, Some(1234), None).unwrap();
        let error = store.get(digest).unwrap_err();
        assert!(error_text(&error).contains("belongs to user 1234"), "{}", error_text(&error));
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
fn a_damaged_envelope_hides_no_other_of_its_package() {
    let root = tempfile::tempdir().unwrap();
    let store = NodeStore::new(root.path(), user(root.path()));
    store.put(envelope(1)).unwrap();
    let manifest = envelope(1).files("amd64").unwrap()[0].digest("wick.toml").unwrap();
    let listed = root.path().join("by-package").join(manifest.hex());
    // Before and after the good one, whatever order the folder has.
    for text in ["a", "b", "c", "d"] {
        let hex = Digest::of(text.as_bytes()).hex();
        fs::write(listed.join(&hex), "").unwrap();
        fs::write(root.path().join("sha256").join(format!("{hex}.json")), "{").unwrap();
    }
    let stored = store.by_package(manifest).unwrap();
    assert_eq!(stored.envelopes, [envelope(1)]);
    assert_eq!(stored.broken.len(), 4);
    assert!(stored.broken.iter().all(|error| matches!(error, StoreError::Envelope { .. })));
}

#[test]
fn a_file_is_absent_only_where_nobody_else_could_have_taken_it_away() {
    let root = tempfile::tempdir().unwrap();
    let user = user(root.path());
    let (none, deep) = (root.path().join("none"), root.path().join("a/b/none"));
    assert!(is_absent(&none, user).unwrap() && is_absent(&deep, user).unwrap());
    let link = root.path().join("link");
    std::os::unix::fs::symlink(&none, &link).unwrap();
    assert!(!is_absent(&link, user).unwrap(), "a link to nothing is there");
    assert!(is_absent(&link.join("policy.toml"), user).is_err(), "nor is a folder that is one");
    fs::write(&none, "").unwrap();
    assert!(!is_absent(&none, user).unwrap());
    assert!(is_absent(&none.join("below"), user).is_err());
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o770)).unwrap();
    assert!(is_absent(&deep, user).unwrap_err().to_string().contains("chmod go-w"));
}

#[test]
fn a_sticky_folder_of_somebody_else_is_not_trusted() {
    let root = tempfile::tempdir().unwrap();
    let user = user(root.path());
    let folder = root.path().join("sticky");
    let file = folder.join("file");
    fs::create_dir(&folder).unwrap();
    fs::write(&file, "x").unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o1777)).unwrap();
    assert_eq!(read_trusted(&file, user, 5).unwrap(), "x");
    if user == 0 {
        std::os::unix::fs::chown(&folder, Some(1234), None).unwrap();
        let error = read_trusted(&file, user, 5).unwrap_err();
        assert!(error.to_string().contains("belongs to user 1234"), "{error}");
        assert!(is_absent(&folder.join("none"), user).is_err());
    }
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
