//! Tars that are put together from blobs.

use std::fs;

use wick_package::oci::{self, Descriptor, Index};
use wick_package::pack::{Archive, Format};
use wick_package::{Blob, Digest, Layout, Package, Reason as _};

use crate::support::*;

fn blob(scratch: &Scratch, bytes: &[u8]) -> Blob {
    let path = scratch.path("blob");
    fs::write(&path, bytes).unwrap();
    Blob { path, offset: 0, len: bytes.len() as u64, digest: None }
}

fn index(manifests: Vec<Descriptor>) -> Index {
    let media_type = Some(oci::INDEX.to_owned());
    Index { annotations: Default::default(), manifests, media_type, schema_version: 2 }
}

#[test]
fn a_packed_folder_becomes_a_tar_blob_by_blob() {
    let scratch = Scratch::new();
    let (folder, packed) = scratch.pack("out", Format::Folder);
    let from = Layout::open(&folder).unwrap();
    let out = scratch.path("site.tar");
    let mut digests: Vec<Digest> = fs::read_dir(folder.join("blobs/sha256"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .map(|name| format!("sha256:{name}").parse().unwrap())
        .collect();
    digests.sort_unstable();
    let mut told = 0;
    let mut archive = Archive::create(&out, digests.len()).unwrap();
    for digest in digests {
        let blob = from.blob(digest).unwrap().unwrap();
        archive.blob(&blob, digest, &mut |bytes| told += bytes).unwrap();
    }
    assert!(!out.exists(), "it appears whole or not at all");
    let digest = archive.finish(&from.index().unwrap()).unwrap();
    assert_eq!(Layout::open(&out).unwrap().digest().unwrap(), digest);
    assert!(told > 300_000, "{told}");
    let package = Package::open(&out).unwrap();
    assert_eq!(package.digest(), packed.digest);
    package.verify().unwrap();
}

#[test]
fn a_blob_with_other_bytes_stops_it_and_leaves_nothing() {
    let scratch = Scratch::new();
    let out = scratch.path("site.tar");
    let mut archive = Archive::create(&out, 1).unwrap();
    let want = Digest::of(b"hello");
    let error = archive.blob(&blob(&scratch, b"hallo"), want, &mut |_| {}).unwrap_err();
    assert_eq!(error.code(), "damaged-store");
    assert!(error.to_string().contains(&want.to_string()), "{error}");
    let mut cut = blob(&scratch, b"hello");
    cut.len = 9;
    let error = archive.blob(&cut, want, &mut |_| {}).unwrap_err();
    assert_eq!(error.code(), "unreadable-package");
    drop(archive);
    let left: Vec<_> = fs::read_dir(scratch.root.path()).unwrap().flatten().collect();
    assert!(left.iter().all(|entry| !entry.file_name().to_string_lossy().contains("site")));
}

#[test]
fn more_blobs_than_are_read_are_not_begun() {
    let scratch = Scratch::new();
    let out = scratch.path("site.tar");
    let Err(error) = Archive::create(&out, 5000) else { panic!("it was begun") };
    assert_eq!(error.code(), "too-many-blobs");
    // What may be written may be read.
    let mut archive = Archive::create(&out, 4094).unwrap();
    for number in 0..4094_u32 {
        archive.bytes(&number.to_le_bytes()).unwrap();
    }
    archive.finish(&index(Vec::new())).unwrap();
    assert!(
        Layout::open(&out).unwrap().blob(Digest::of(&4093_u32.to_le_bytes())).unwrap().is_some()
    );
}

#[test]
fn something_else_is_not_replaced() {
    let scratch = Scratch::new();
    let out = scratch.path("site.tar");
    fs::write(&out, "mine").unwrap();
    let Err(error) = Archive::create(&out, 0) else { panic!("it was begun") };
    assert_eq!(error.code(), "output-occupied");
    assert_eq!(fs::read(&out).unwrap(), b"mine");
}

#[test]
fn what_a_killed_packer_left_goes_and_what_a_living_one_writes_stays() {
    let scratch = Scratch::new();
    let out = scratch.path("site.tar");
    let (left, mine) = (scratch.path(".site.tar.77-88.partial"), scratch.path(".site.tar.partial"));
    fs::write(&left, "half").unwrap();
    fs::write(&mine, "no packer's").unwrap();
    let first = Archive::create(&out, 0).unwrap();
    let second = Archive::create(&out, 0).unwrap();
    assert!(!left.exists() && mine.exists());
    first.finish(&index(Vec::new())).unwrap();
    second.finish(&index(Vec::new())).unwrap();
    let names = fs::read_dir(scratch.root.path()).unwrap();
    let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 3, "the package, the tar and `mine`: {names:?}");
}
