//! Packages as directories.

use std::fs;
use std::path::Path;

use wick_package::{FileFault, LayerRole, Limits, OpenError, Package, Reason as _, Wants};

use crate::support::*;

#[test]
fn a_directory_or_its_manifest_opens() {
    let scratch = Scratch::new();
    for path in [scratch.dir(), scratch.dir().join("wick.toml")] {
        let package = Package::open(&path).unwrap();
        assert_eq!(package.manifest().name.as_str(), "filetype");
        assert_eq!(package.guest_root(), Some(scratch.dir().as_path()));
        let blob = package.file(&rel("weights/model.onnx")).unwrap();
        assert_eq!((blob.offset, blob.len, blob.digest), (0, 300_001, None));
        let layers = package.layers();
        assert_eq!((layers.len(), layers[0].role), (3, LayerRole::Code));
        assert_eq!((layers[1].role, layers[1].size), (LayerRole::Weights, 300_001));
    }
}

#[test]
fn a_component_alone_is_a_package_that_asks_for_what_its_host_says() {
    let scratch = Scratch::new();
    let bare = |component: &str| {
        let wants = Wants { env: vec!["A".into()], ..Wants::default() };
        let name = "app".parse().unwrap();
        Package::bare(&scratch.dir(), rel(component), name, wants, Limits::default())
    };
    let package = bare("weights/model.onnx").unwrap();
    let manifest = package.manifest();
    assert_eq!((manifest.name.as_str(), manifest.graphs.len()), ("app", 0));
    assert_eq!(manifest.wants.env, ["A"]);
    assert_eq!(package.path(), scratch.dir().join("weights/model.onnx"));
    assert_eq!(package.guest_root(), Some(scratch.dir().as_path()));
    let elsewhere = package.with_guest_root("/elsewhere".into());
    assert_eq!(elsewhere.guest_root(), Some(Path::new("/elsewhere")));
    assert!(elsewhere.file(&rel("weights/model.onnx")).is_ok());
    let missing = bare("nothing.wasm").unwrap_err();
    assert_eq!(missing.code(), "missing-file");
}

#[test]
fn a_change_of_the_manifest_or_a_file_changes_the_digest() {
    let scratch = Scratch::new();
    let digest = || Package::open(&scratch.dir()).unwrap().digest();
    let before = digest();
    assert_eq!(digest(), before);
    // A file moved over another: same length, perhaps the same time.
    let model = scratch.dir().join("weights/model.onnx");
    let copy = scratch.path("copy");
    fs::copy(&model, &copy).unwrap();
    fs::rename(&copy, &model).unwrap();
    let moved = digest();
    assert_ne!(moved, before);
    fs::write(scratch.dir().join("wick.toml"), format!("{MANIFEST}\n")).unwrap();
    assert_ne!(digest(), moved);
}

#[test]
fn all_files_that_are_missing_or_empty_are_reported_together() {
    let scratch = Scratch::new();
    fs::write(scratch.dir().join("handler.wasm"), b"").unwrap();
    fs::remove_file(scratch.dir().join("warmup.json")).unwrap();
    fs::remove_dir_all(scratch.dir().join("weights")).unwrap();
    fs::create_dir_all(scratch.dir().join("weights/model.onnx")).unwrap();
    let error = open_error(&scratch.dir());
    assert_eq!(error.code(), "missing-file");
    let OpenError::Files(errors) = &error else { panic!("{error:?}") };
    let faults: Vec<_> = errors.files().iter().map(|file| file.fault.clone()).collect();
    use FileFault::{Empty, Missing, NotAFile};
    assert_eq!(faults, [Empty, Missing, NotAFile, Missing]);
    let text = error.to_string().replace(scratch.dir().to_str().unwrap(), "DIR");
    assert_eq!(
        text,
        "DIR names 4 files that can't be used:
  handler.wasm, named by [handler], is empty: was it copied whole?
  warmup.json, named by [warmup], is missing: add it, or correct the path
  weights/model.onnx, named by [[graph]] magika, is not an ordinary file
  weights/model.npu.onnx, named by [[graph]] magika, is missing: add it, or correct the path"
    );
}

#[test]
fn what_is_no_package_is_named_as_such() {
    let scratch = Scratch::new();
    let text = scratch.path("notes.txt");
    fs::write(&text, "not a tar".repeat(200)).unwrap();
    fs::create_dir(scratch.path("empty")).unwrap();
    fs::write(scratch.path("nothing"), b"").unwrap();
    for path in [text, scratch.path("empty"), scratch.path("nothing"), "/dev/null".into()] {
        let error = open_error(&path);
        assert_eq!(error.code(), "not-a-package", "{}: {error:?}", path.display());
    }
    assert_eq!(open_error(&scratch.path("absent")).code(), "unreadable-package");
    assert_eq!(open_error(Path::new("")).code(), "unreadable-package");
}

#[test]
fn a_manifest_that_is_no_text_or_far_too_long_is_refused() {
    let scratch = Scratch::new();
    let manifest = scratch.dir().join("wick.toml");
    fs::write(&manifest, b"[package]\nname = \"\xff\"\n").unwrap();
    assert!(matches!(open_error(&scratch.dir()), OpenError::NotText { .. }));
    fs::write(&manifest, "#".repeat(2 << 20)).unwrap();
    assert!(matches!(open_error(&scratch.dir()), OpenError::LongManifest { .. }));
    fs::write(&manifest, "[package]\n").unwrap();
    let error = open_error(&scratch.dir());
    assert_eq!(error.code(), "bad-manifest");
    assert!(error.to_string().contains("wick.toml:1:1: `name` is missing"), "{error}");
}

#[test]
fn a_file_that_is_cut_short_while_it_is_read_is_an_error() {
    let scratch = Scratch::new();
    let package = Package::open(&scratch.dir()).unwrap();
    let blob = package.file(&rel("handler.wasm")).unwrap();
    fs::write(scratch.dir().join("handler.wasm"), b"short").unwrap();
    assert_eq!(blob.read(1 << 20).unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
    assert!(blob.hash().is_err());
    assert_eq!(blob.read(4).unwrap_err().kind(), std::io::ErrorKind::FileTooLarge);
    fs::remove_file(scratch.dir().join("handler.wasm")).unwrap();
    let error = package.file(&rel("handler.wasm")).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    assert!(error.to_string().contains("`handler.wasm` of package `filetype` is missing"));
}
