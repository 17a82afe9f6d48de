//! Layouts that other tools made.

use std::fs;
use std::path::Path;

use serde_json::json;
use tar::EntryType;
use wick_package::{Digest, Package, Reason as _, error_text};

use crate::support::*;

const HOST: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

fn version(root: &Path) -> String {
    Package::open(root)
        .unwrap_or_else(|e| panic!("{}", error_text(&e)))
        .manifest()
        .version
        .to_string()
}

/// Layers of a package that tells which one it is.
fn layers_of(version: &str) -> Vec<(&'static str, Vec<u8>)> {
    let manifest = BARE.replace("1.0.0", version);
    vec![(LAYER, tar_of(&[("./wick.toml", manifest.as_bytes()), ("./m.onnx", b"weights")]))]
}

#[test]
fn the_image_for_this_machine_is_chosen_or_any() {
    let scratch = Scratch::new();
    let root = scratch.path("made");
    let other = put_image(&root, &layers_of("1.0.0"), "riscv64");
    let host = put_image(&root, &layers_of("2.0.0"), HOST);
    let third = put_image(&root, &layers_of("3.0.0"), "s390x");
    put_index(&root, &[other.clone(), host, third.clone()]);
    assert_eq!(version(&root), "2.0.0");
    put_index(&root, &[other.clone(), third]);
    assert_eq!(version(&root), "1.0.0");
    put_index(&root, &[other]);
    assert_eq!(version(&root), "1.0.0");
}

#[test]
fn several_images_are_ambiguous_and_one_with_several_names_is_not() {
    let scratch = Scratch::new();
    let root = scratch.path("made");
    let named = |mut image: serde_json::Value, name: &str| {
        image["annotations"] = json!({ "io.containerd.image.name": name });
        image.as_object_mut().unwrap().remove("platform");
        image
    };
    let first = put_image(&root, &layers_of("1.0.0"), HOST);
    let second = put_image(&root, &layers_of("2.0.0"), HOST);
    put_index(&root, &[named(first.clone(), "a:1"), named(first.clone(), "a:latest")]);
    assert_eq!(version(&root), "1.0.0");
    put_index(&root, &[named(first, "a:1"), named(second, "a:2")]);
    let error = open_error(&root);
    assert_eq!(error.code(), "unsuitable-layout");
    assert!(
        error_text(&error).contains("several images (a:1, a:2): export one alone"),
        "{error:?}"
    );
}

#[test]
fn attestations_beside_the_image_are_passed_over() {
    let scratch = Scratch::new();
    let root = scratch.path("made");
    let mut attestation = put_image(&root, &layers_of("9.0.0"), "unknown");
    attestation["platform"]["os"] = "unknown".into();
    let image = put_image(&root, &layers_of("1.0.0"), HOST);
    put_index(&root, &[attestation, image]);
    assert_eq!(version(&root), "1.0.0");
}

#[test]
fn dockers_media_types_and_weights_beside_the_code_are_read() {
    let scratch = Scratch::new();
    let root = scratch.path("made");
    let layers = [("application/vnd.docker.image.rootfs.diff.tar", layers_of("1.0.0").remove(0).1)];
    let mut image = put_image(&root, &layers, HOST);
    image["mediaType"] = "application/vnd.docker.distribution.manifest.v2+json".into();
    put_index(&root, &[image]);
    let package = Package::open(&root).unwrap();
    let blob = package.file(&rel("m.onnx")).unwrap();
    assert_eq!((blob.read(10).unwrap(), blob.digest), (b"weights".to_vec(), None));
    package.verify().unwrap();
}

#[test]
fn a_later_layer_hides_a_file_of_an_earlier() {
    let scratch = Scratch::new();
    let root = scratch.path("made");
    let mut layers = layers_of("1.0.0");
    layers.push((LAYER, tar_of(&[("m.onnx", b"newer")])));
    layout_of(&root, &layers);
    let blob = Package::open(&root).unwrap().file(&rel("m.onnx")).unwrap();
    assert_eq!(blob.read(10).unwrap(), b"newer");
}

#[test]
fn compressed_layers_and_files_say_what_to_do() {
    let scratch = Scratch::new();
    let root = scratch.path("made");
    for end in ["+gzip", "+zstd"] {
        layout_of(&root, &[(&format!("{LAYER}{end}"), b"compressed".to_vec())]);
        let error = open_error(&root);
        assert_eq!(error.code(), "unsuitable-layout");
        assert!(error_text(&error).contains("`wick pack`"), "{}", error_text(&error));
    }
    layout_of(&root, &[("application/x-model", b"other".to_vec())]);
    assert!(error_text(&open_error(&root)).contains("unknown media type `application/x-model`"));
    let file = scratch.path("image.tar.gz");
    let mut bytes = b"\x1f\x8b\x08".to_vec();
    bytes.resize(2000, 7);
    fs::write(&file, bytes).unwrap();
    let error = open_error(&file);
    assert_eq!(error.code(), "unsuitable-layout");
    assert!(
        error_text(&error).contains("compressed with gzip: decompress"),
        "{}",
        error_text(&error)
    );
}

#[test]
fn a_layout_that_tar_made_with_dots_and_folders_opens() {
    let scratch = Scratch::new();
    let root = scratch.path("made");
    layout_of(&root, &bare_layers());
    let out = scratch.path("made.tar");
    let mut builder = tar::Builder::new(fs::File::create(&out).unwrap());
    builder.append_dir_all(".", &root).unwrap();
    builder.finish().unwrap();
    let package = Package::open(&out).unwrap();
    assert_eq!(package.file(&rel("m.onnx")).unwrap().read(10).unwrap(), b"weights");
    package.verify().unwrap();
}

#[test]
fn a_tar_of_something_else_is_no_package() {
    let scratch = Scratch::new();
    let out = scratch.path("other.tar");
    fs::write(&out, tar_of(&[("wick.toml", BARE.as_bytes())])).unwrap();
    assert_eq!(open_error(&out).code(), "not-a-package");
}

#[test]
fn recorded_digests_that_are_wrong_are_found_by_verify() {
    let scratch = Scratch::new();
    let root = scratch.path("made");
    let image = put_image(&root, &bare_layers(), HOST);
    let path = root.join("blobs").join(image["digest"].as_str().unwrap().replace(':', "/"));
    let mut manifest: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let wrong = json!({"m.onnx": Digest::of(b"other").to_string()}).to_string();
    manifest["layers"][1]["annotations"] = json!({ "dev.wick.files": wrong });
    let (digest, size) = put_json(&root, &manifest);
    let kind = MANIFEST_TYPE;
    put_index(&root, &[json!({"mediaType": kind, "digest": digest.to_string(), "size": size})]);
    let error = Package::open(&root).unwrap().verify().unwrap_err();
    assert!(error_text(&error).contains("file `m.onnx` has digest"), "{}", error_text(&error));
}

#[test]
fn a_sealed_package_has_a_digest_for_every_file_though_nobody_has_recorded_it() {
    let scratch = Scratch::new();
    let root = scratch.path("made");
    let large = content("large", 700_000);
    let layers = [
        (LAYER, tar_of(&[("wick.toml", BARE.as_bytes()), ("m.onnx", b"hidden by the next layer")])),
        (LAYER, tar_of(&[("first", b"1"), ("m.onnx", &large), ("empty", b"")])),
    ];
    layout_of(&root, &layers);
    let package = Package::open(&root).unwrap();
    let file = package.file(&rel("m.onnx")).unwrap();
    assert_eq!((file.digest, package.must_have(&file)), (None, None));
    let sealed = package.sealed().unwrap();
    for (path, bytes) in [("m.onnx", &large[..]), ("first", b"1"), ("empty", b"")] {
        let must = sealed.must_have(&sealed.file(&rel(path)).unwrap()).unwrap();
        assert_eq!(must, Digest::of(bytes), "{path}");
        assert!(must.check(bytes).is_ok() && must.check(b"other").is_err());
    }
    let manifest = sealed.file(&rel("wick.toml")).unwrap();
    assert_eq!(sealed.must_have(&manifest), Some(Digest::of(BARE.as_bytes())));
    // Weights that are not what the image says are found, as `verify` finds them.
    let layer = root.join("blobs/sha256").join(Digest::of(&layers[1].1).hex());
    let mut bytes = layers[1].1.clone();
    bytes[2000] ^= 1;
    fs::write(layer, bytes).unwrap();
    let error = Package::open(&root).unwrap().sealed().unwrap_err();
    assert!(error_text(&error).contains("a layer"), "{}", error_text(&error));
}

#[test]
fn artifacts_beside_an_image_are_no_images() {
    let scratch = Scratch::new();
    let root = scratch.path("made");
    let mut artifact = put_image(&root, &layers_of("9.0.0"), HOST);
    artifact["artifactType"] = "application/vnd.dev.sigstore.bundle.v0.3+json".into();
    let image = put_image(&root, &layers_of("1.0.0"), HOST);
    put_index(&root, &[artifact, image]);
    assert_eq!(version(&root), "1.0.0");
}

#[test]
fn names_that_lead_out_of_a_layout_and_links_in_it_are_refused() {
    let scratch = Scratch::new();
    let out = scratch.path("hostile.tar");
    let blob = format!("blobs/sha256/{}", "0".repeat(64));
    let cases = [
        (EntryType::Regular, "../outside", "leads out of it"),
        (EntryType::Regular, "blobs/../../outside", "leads out of it"),
        (EntryType::Regular, "/etc/passwd", "leads out of it"),
        (EntryType::Directory, "./../", "leads out of it"),
        (EntryType::Symlink, "index.json", "is a link"),
        (EntryType::Symlink, &blob, "is a link"),
        (EntryType::Link, "./oci-layout", "is a link"),
    ];
    for (kind, name, words) in cases {
        let marker = tar_of(&[("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)]);
        let mut tar = marker[..marker.len() - 1024].to_vec();
        tar.extend(tar_with(kind, name, b""));
        fs::write(&out, tar).unwrap();
        let error = open_error(&out);
        assert_eq!(error.code(), "damaged-layout", "{name}");
        assert!(error_text(&error).contains(words), "{name}: {}", error_text(&error));
        assert!(error_text(&error).contains(name), "{name}: {}", error_text(&error));
    }
}
