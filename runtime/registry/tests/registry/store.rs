//! The store, and what people and crashes do to it.

use std::fs;

use wick_package::{Digest, Reason as _, Reference};
use wick_registry::{Fault, Store, StoreError};

use crate::liar::Liar;
use crate::support::{Scratch, assert_whole, client, quiet, weights_layer};

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

/// A store with one image; the digest and the file of its weights.
fn filled(scratch: &Scratch) -> (Store, Digest, std::path::PathBuf) {
    let layout = scratch.layout("a", "one", 100_000);
    let weights = weights_layer(&layout).0;
    let store = scratch.store();
    store.import_layout(&layout, &name("localhost/app:1")).unwrap();
    let file = store.blob_path(weights);
    (store, weights, file)
}

#[test]
fn images_are_found_by_name_digest_and_the_beginning_of_one() {
    let scratch = Scratch::new();
    let (store, ..) = filled(&scratch);
    let image = store.find("localhost/app:1").unwrap();
    let hex = image.digest().hex();
    let by_digest = format!("other.example/x@sha256:{hex}");
    for wanted in [format!("sha256:{hex}"), hex[..12].to_owned(), by_digest] {
        assert_eq!(store.find(&wanted).unwrap().digest(), image.digest(), "{wanted}");
    }
    for wanted in ["localhost/app:2", "app:1", &hex[..4], "ffffffffffff", ""] {
        let error = store.find(wanted).unwrap_err();
        assert_eq!(error.code(), "image-not-found", "{wanted}");
    }
}

#[test]
fn a_name_that_moves_leaves_the_old_image_without_one() {
    let scratch = Scratch::new();
    let (store, ..) = filled(&scratch);
    let old = store.find("localhost/app:1").unwrap();
    let lease = store.lease().unwrap();
    store.name(&lease, &old.descriptor, &name("localhost/app:one")).unwrap();
    store.import_layout(&scratch.layout("b", "two", 10), &name("localhost/app:1")).unwrap();
    assert_ne!(store.find("localhost/app:1").unwrap().digest(), old.digest());
    assert_eq!(store.find("localhost/app:one").unwrap().names, ["localhost/app:one"]);
    assert_whole(&store);
}

#[test]
fn removing_the_last_name_frees_what_nobody_else_has() {
    let scratch = Scratch::new();
    let (store, _, weights) = filled(&scratch);
    // The same weights under other code.
    let other = scratch.layout("b", "two", 100_000);
    store.import_layout(&other, &name("localhost/app:2")).unwrap();
    let swept = store.remove("localhost/app:1", false).unwrap();
    assert_eq!(swept.images, ["localhost/app:1"]);
    assert!(weights.exists() && swept.bytes > 0 && swept.bytes < 50_000, "{swept:?}");
    assert_whole(&store);
    let dry = store.remove("localhost/app:2", true).unwrap();
    assert!(dry.bytes > 100_000 && weights.exists());
    assert_eq!(store.remove("localhost/app:2", false).unwrap(), dry);
    assert_eq!(fs::read_dir(store.root().join("blobs/sha256")).unwrap().count(), 0);
}

#[test]
fn an_image_in_use_loses_its_name_and_keeps_its_blobs() {
    let scratch = Scratch::new();
    let (store, _, weights) = filled(&scratch);
    let image = store.find("localhost/app:1").unwrap();
    let (package, lease) = store.open_package(&image.descriptor).unwrap();
    // Another process, as far as locks are concerned.
    let other = scratch.store();
    other.remove("localhost/app:1", false).unwrap();
    assert!(weights.exists());
    package.verify().unwrap();
    drop(lease);
    let limits =
        wick_registry::gc::Limits { unused: None, bytes: None, grace: std::time::Duration::ZERO };
    other.gc(&limits, false).unwrap();
    assert!(!weights.exists());
}

#[test]
fn a_store_damaged_by_hand_is_found_out_and_mended() {
    let scratch = Scratch::new();
    let (store, weights, file) = filled(&scratch);
    let mut bytes = fs::read(&file).unwrap();
    bytes[70_000] ^= 1;
    fs::write(&file, &bytes).unwrap();
    fs::write(store.root().join("blobs/sha256/notes.txt"), "mine").unwrap();
    let report = store.check(&()).unwrap();
    let got = Digest::of(&bytes);
    assert!(report.faults.contains(&Fault::Blob { digest: weights, got }), "{report:?}");
    let strays = report.faults.iter().filter(|fault| matches!(fault, Fault::Stray { .. }));
    assert_eq!(strays.count(), 1);
    let image = report.faults.iter().find(|fault| matches!(fault, Fault::Image { .. }));
    assert!(format!("{image:?}").contains("localhost/app:1"), "{report:?}");
    store.repair(&()).unwrap();
    assert!(!file.exists());
    assert!(store.root().join("blobs/sha256/notes.txt").exists(), "what is not ours stays");
    assert!(store.images().unwrap().is_empty(), "it must be pulled again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_somebody_removed_or_cut_is_pulled_again() {
    let (scratch, liar) = (Scratch::new(), Liar::start().await);
    let layout = scratch.layout("a", "one", 100_000);
    liar.serve(&layout, "1");
    let store = scratch.store();
    let pulled = client().pull(&liar.reference("1"), &store, quiet()).await.unwrap();
    let weights = store.blob_path(weights_layer(&layout).0);
    fs::remove_file(&weights).unwrap();
    assert!(!store.is_complete(&pulled.image));
    client().pull(&liar.reference("1"), &store, quiet()).await.unwrap();
    assert!(store.is_complete(&pulled.image));
    fs::write(&weights, b"cut").unwrap();
    assert!(!store.is_complete(&pulled.image));
    client().pull(&liar.reference("1"), &store, quiet()).await.unwrap();
    assert_whole(&store);
}

#[test]
fn a_broken_index_is_an_error_that_says_how_to_mend_it_and_loses_no_image() {
    let scratch = Scratch::new();
    let (store, ..) = filled(&scratch);
    let digest = store.find("localhost/app:1").unwrap().digest();
    let index = store.root().join("index.json");
    // Opening a store makes what a new one lacks, and not what was lost.
    fs::remove_file(&index).unwrap();
    let store = Store::open(store.root()).unwrap();
    assert_eq!(store.images().unwrap_err().code(), "damaged-store");
    fs::write(&index, b"{ broken").unwrap();
    let error = store.images().unwrap_err();
    assert_eq!(error.code(), "damaged-store");
    assert!(error.to_string().contains("wick images --repair"), "{error}");
    let limits =
        wick_registry::gc::Limits { unused: None, bytes: None, grace: std::time::Duration::ZERO };
    assert!(store.gc(&limits, false).is_err(), "who does not know what is needed deletes nothing");

    store.repair(&()).unwrap();
    let images = store.images().unwrap();
    assert_eq!(images.len(), 1);
    assert_eq!((images[0].digest(), images[0].names.len()), (digest, 0));
    assert_whole(&store);
    let aside = fs::read_dir(store.root()).unwrap().flatten();
    let aside = aside.filter(|entry| entry.file_name().to_string_lossy().contains("damaged"));
    assert_eq!(aside.count(), 1, "the broken file is kept");
}

#[test]
fn other_bytes_are_not_taken_for_a_blob() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let want = wick_package::oci::Descriptor::of("x", b"hello");
    let error = store.ingest(&want, &mut &b"hallo"[..]).unwrap_err();
    assert!(matches!(error, StoreError::Digest { .. }), "{error}");
    for wrong in [&b"hell"[..], b"hello!"] {
        let error = store.ingest(&want, &mut &wrong[..]).unwrap_err();
        assert!(matches!(error, StoreError::Length { .. }), "{error}");
    }
    assert!(!store.has(&want));
    store.ingest(&want, &mut &b"hello"[..]).unwrap();
    assert!(store.has(&want));
}
