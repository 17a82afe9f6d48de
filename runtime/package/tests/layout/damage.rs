//! Damaged layouts: each damage has its own clear error.

use std::fs;
use std::path::Path;

use serde_json::json;
use tar::EntryType;
use wick_package::pack::Format;
use wick_package::{Package, Reason as _, error_text};

use crate::support::*;

/// Damage a packed folder and look at the error.
fn check(damage: impl FnOnce(&Path, &dyn Fn(usize) -> std::path::PathBuf), code: &str, text: &str) {
    let scratch = Scratch::new();
    let (out, packed) = scratch.pack("out", Format::Folder);
    let layer = |n: usize| out.join("blobs/sha256").join(packed.layers[n].digest.unwrap().hex());
    damage(&out, &layer);
    let error = open_error(&out);
    assert_eq!(error.code(), code, "{}", error_text(&error));
    assert!(error_text(&error).contains(text), "{}", error_text(&error));
}

/// An image of these layers, opened.
fn check_layers(layers: &[(&str, Vec<u8>)], code: &str, text: &str) {
    let scratch = Scratch::new();
    let root = scratch.path("made");
    layout_of(&root, layers);
    let error = open_error(&root);
    assert_eq!(error.code(), code, "{}", error_text(&error));
    assert!(error_text(&error).contains(text), "{}", error_text(&error));
}

fn flip_last_byte(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn missing_parts_are_named() {
    check(
        |out, _| fs::remove_file(out.join("index.json")).unwrap(),
        "damaged-layout",
        "its index.json is missing",
    );
    check(|_, layer| fs::remove_file(layer(0)).unwrap(), "damaged-layout", "its layer sha256:");
    check(|_, layer| fs::remove_file(layer(1)).unwrap(), "damaged-layout", "is missing: copy");
    check(
        |out, _| fs::remove_dir_all(out.join("blobs")).unwrap(),
        "damaged-layout",
        "its image index sha256:",
    );
}

#[test]
fn a_blob_of_another_size_is_refused_and_weights_are_not_read_for_it() {
    let cut = |path: &Path| fs::write(path, &fs::read(path).unwrap()[1..]).unwrap();
    check(|_, layer| cut(&layer(0)), "damaged-layout", "copy the layout again");
    check(|_, layer| cut(&layer(1)), "damaged-layout", "bytes instead of");
}

#[test]
fn changed_code_and_documents_are_found_when_opened() {
    check(|_, layer| flip_last_byte(&layer(0)), "damaged-layout", "a layer has digest sha256:");
    for what in ["its image index", "its manifest", "its image config"] {
        let damage = |out: &Path, _: &dyn Fn(usize) -> std::path::PathBuf| {
            let path = document(out, what);
            let text = fs::read_to_string(&path).unwrap();
            // As long as before, and still JSON.
            fs::write(path, text.replacen("filetype", "filetypo", 1)).unwrap();
        };
        check(damage, "damaged-layout", &format!("{what} has digest sha256:"));
    }
}

/// The path of a document, found by its form.
fn document(out: &Path, what: &str) -> std::path::PathBuf {
    let host = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let json = |path: &Path| -> serde_json::Value {
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    };
    let blob = |descriptor: &serde_json::Value| {
        out.join("blobs").join(descriptor["digest"].as_str().unwrap().replace(':', "/"))
    };
    let index = blob(&json(&out.join("index.json"))["manifests"][0]);
    let index_json = json(&index);
    let mut entries = index_json["manifests"].as_array().unwrap().iter();
    let entry = entries.find(|entry| entry["platform"]["architecture"] == host);
    let manifest = blob(entry.unwrap_or_else(|| &index_json["manifests"][0]));
    match what {
        "its image index" => index,
        "its manifest" => manifest,
        _ => blob(&json(&manifest)["config"]),
    }
}

#[test]
fn changed_weights_are_found_by_verify_only() {
    for format in [Format::Folder, Format::Tar] {
        let scratch = Scratch::new();
        let (out, packed) = scratch.pack("out", format);
        let blob = Package::open(&out).unwrap().file(&rel("weights/model.onnx")).unwrap();
        let mut bytes = fs::read(&blob.path).unwrap();
        bytes[usize::try_from(blob.offset).unwrap() + 1000] ^= 1;
        fs::write(&blob.path, bytes).unwrap();
        let package = Package::open(&out).unwrap();
        assert_eq!(package.digest(), packed.digest);
        let error = package.verify().unwrap_err();
        assert_eq!(error.code(), "damaged-layout");
        assert!(error_text(&error).contains("a layer has digest"), "{}", error_text(&error));
    }
}

#[test]
fn a_tar_cut_anywhere_is_an_error() {
    let scratch = Scratch::new();
    let (out, _) = scratch.pack("out.tar", Format::Tar);
    let whole = fs::read(&out).unwrap();
    // The last block of the end mark is not needed.
    for len in (0..whole.len() - 1024).step_by(1009).chain([1, 511, 512, 513]) {
        fs::write(&out, &whole[..len]).unwrap();
        let code = open_error(&out).code();
        assert!(["damaged-layout", "not-a-package"].contains(&code), "{len}: {code}");
    }
}

#[test]
fn bad_json_and_other_versions_are_refused() {
    let write = |name: &'static str, text: &'static str| {
        move |out: &Path, _: &dyn Fn(usize) -> std::path::PathBuf| {
            fs::write(out.join(name), text).unwrap();
        }
    };
    check(write("oci-layout", "{"), "damaged-layout", "its oci-layout is not the JSON");
    check(write("oci-layout", "{\"imageLayoutVersion\":\"2.0\"}"), "unsuitable-layout", "`2.0`");
    check(write("index.json", "[1"), "damaged-layout", "its index.json is not the JSON");
    check(
        write("index.json", "{\"schemaVersion\":2,\"manifests\":[]}"),
        "unsuitable-layout",
        "holds no image",
    );
    let long = |out: &Path, _: &dyn Fn(usize) -> std::path::PathBuf| {
        fs::write(out.join("index.json"), vec![b' '; (4 << 20) + 1]).unwrap();
    };
    check(long, "damaged-layout", "at most 4194304 are read");
}

#[test]
fn layers_with_links_devices_or_paths_outside_are_refused() {
    let bad = [
        (EntryType::Symlink, "link", "is a link"),
        (EntryType::Link, "hard", "is a link"),
        (EntryType::Fifo, "pipe", "is not an ordinary file"),
        (EntryType::Block, "disk", "is not an ordinary file"),
        (EntryType::GNUSparse, "sparse", "is not an ordinary file"),
        (EntryType::Regular, "/etc/passwd", "leads outside the package"),
        (EntryType::Regular, "../up", "leads outside the package"),
        (EntryType::Regular, "a/../../up", "leads outside the package"),
        (EntryType::Directory, "../up/", "leads outside the package"),
        (EntryType::Regular, ".wh.wick.toml", "deletes a file"),
        (EntryType::Directory, "a/.wh..wh..opq", "deletes a file"),
    ];
    for (kind, name, text) in bad {
        let mut layers = bare_layers();
        layers.push((LAYER, tar_with(kind, name, b"")));
        check_layers(&layers, "damaged-layout", text);
    }
}

#[test]
fn layers_that_are_no_tar_are_refused() {
    for bytes in [vec![], vec![7; 100], vec![7; 10_240], vec![0; 511]] {
        let mut layers = bare_layers();
        layers.push((LAYER, bytes));
        check_layers(&layers, "damaged-layout", "a tar (its layer) can't be read");
    }
}

#[test]
fn sizes_beyond_the_end_do_not_overflow() {
    for size in [u64::MAX, u64::MAX - 511, i64::MAX as u64, 1 << 40] {
        let mut header = tar::Header::new_gnu();
        header.set_size(size);
        header.set_path("m.onnx").unwrap();
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.resize(4096, 0);
        check_layers(&[(LAYER, bytes)], "damaged-layout", "a tar (its layer) can't be read");
    }
    let mut pax = tar_with(EntryType::XHeader, "pax", b"29 size=18446744073709551615\n");
    pax.truncate(1024);
    pax.extend(tar_of(&[("m.onnx", b"weights")]));
    check_layers(&[(LAYER, pax)], "damaged-layout", "a tar (its layer) can't be read");
    let long = tar_with(EntryType::GNULongName, "long", &vec![b'a'; 1 << 20]);
    check_layers(&[(LAYER, long)], "damaged-layout", "far too long");
}

#[test]
fn too_many_members_and_too_many_layers_are_refused() {
    let names: Vec<_> = (0..5000).map(|n| format!("f{n}")).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), b"".as_slice())).collect();
    check_layers(&[(LAYER, tar_of(&files))], "damaged-layout", "more than 4096 members");
    let layers: Vec<_> = (0..128).map(|_| (LAYER, tar_of(&[]))).collect();
    check_layers(&layers, "damaged-layout", "128 layers");
}

#[test]
fn indexes_that_never_end_are_refused() {
    let scratch = Scratch::new();
    let root = scratch.path("made");
    let mut next = put_image(&root, &bare_layers(), "amd64");
    let kind = "application/vnd.oci.image.index.v1+json";
    for _ in 0..10 {
        let (digest, size) = put_json(&root, &json!({"schemaVersion": 2, "manifests": [next]}));
        next = json!({"mediaType": kind, "digest": digest.to_string(), "size": size});
    }
    put_index(&root, &[next]);
    assert!(error_text(&open_error(&root)).contains("more than 3 deep"));
}

#[test]
fn a_config_that_lists_other_layers_is_refused() {
    let scratch = Scratch::new();
    let root = scratch.path("made");
    let image = put_image(&root, &bare_layers(), "amd64");
    let digest = image["digest"].as_str().unwrap().replace(':', "/");
    let path = root.join("blobs").join(digest);
    let mut manifest: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    manifest["layers"].as_array_mut().unwrap().reverse();
    let (digest, size) = put_json(&root, &manifest);
    put_index(
        &root,
        &[json!({"mediaType": MANIFEST_TYPE, "digest": digest.to_string(), "size": size})],
    );
    assert!(error_text(&open_error(&root)).contains("disagree on the layers"));
}

#[test]
fn a_file_that_the_manifest_names_and_no_layer_has_is_missing() {
    check_layers(&bare_layers()[..1], "missing-file", "m.onnx, named by [[graph]] m, is missing");
    check_layers(&bare_layers()[1..], "unsuitable-layout", "no layer has a wick.toml");
    let broken = vec![(LAYER, tar_of(&[("wick.toml", b"[package]\n")]))];
    check_layers(&broken, "bad-manifest", "wick.toml:1:1: `name` is missing in [package]");
}
