//! What is packed is what is opened, byte for byte, every time.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use wick_package::pack::{Format, Options, PackError, Progress, write_layout};
use wick_package::{LayerRole, Package, Reason as _};

use crate::support::*;

fn check_content(package: &Package) {
    for (name, len) in FILES {
        let blob = package.file(&rel(name)).unwrap();
        let mut bytes = Vec::new();
        blob.open().unwrap().read_to_end(&mut bytes).unwrap();
        assert!(bytes == content(name, len), "{name} differs");
    }
}

/// All files below a folder, with their bytes, in order.
fn tree(root: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(tree(&path));
        } else {
            files.push((
                path.file_name().unwrap().to_str().unwrap().into(),
                fs::read(&path).unwrap(),
            ));
        }
    }
    files.sort();
    files
}

#[test]
fn a_packed_package_opens_with_the_same_bytes() {
    let scratch = Scratch::new();
    let directory = Package::open(&scratch.dir()).unwrap();
    for format in [Format::Folder, Format::Tar] {
        let (out, packed) = scratch.pack(&format!("{format:?}"), format);
        let package = Package::open(&out).unwrap();
        assert_eq!(package.manifest(), directory.manifest());
        assert_eq!(package.digest(), packed.digest);
        assert_eq!(package.layers(), packed.layers);
        assert_eq!(package.guest_root(), None);
        check_content(&package);
        package.verify().unwrap();
        for (name, len) in FILES {
            let blob = package.file(&rel(name)).unwrap();
            assert_eq!(blob.digest, Some(wick_package::Digest::of(&content(name, len))));
        }
    }
}

#[test]
fn packing_twice_gives_the_same_bytes_and_both_forms_the_same_digests() {
    let scratch = Scratch::new();
    let (first, a) = scratch.pack("first", Format::Folder);
    let (first_tar, b) = scratch.pack("first.tar", Format::Tar);
    // Times and inodes of the files are others the second time.
    for (name, len) in FILES {
        let path = scratch.dir().join(name);
        fs::remove_file(&path).unwrap();
        fs::write(&path, content(name, len)).unwrap();
    }
    let (second, c) = scratch.pack("second", Format::Folder);
    let (second_tar, d) = scratch.pack("second.tar", Format::Tar);
    assert!(a == b && b == c && c == d);
    assert!(tree(&first) == tree(&second));
    assert!(fs::read(first_tar).unwrap() == fs::read(second_tar).unwrap());
}

#[test]
fn packing_a_layout_again_gives_the_same_image() {
    let scratch = Scratch::new();
    let (folder, packed) = scratch.pack("folder", Format::Folder);
    let options = Options { format: Format::Tar, reference: None };
    let package = Package::open(&folder).unwrap();
    let out = scratch.path("again.tar");
    assert_eq!(write_layout(&package, &out, &options, &mut |_| {}).unwrap(), packed);
    let (tar, _) = scratch.pack("direct.tar", Format::Tar);
    assert!(fs::read(out).unwrap() == fs::read(tar).unwrap());
}

#[test]
fn weights_have_layers_of_their_own_and_code_shares_one() {
    let scratch = Scratch::new();
    let (_, packed) = scratch.pack("out", Format::Folder);
    let layers: Vec<_> =
        packed.layers.iter().map(|layer| (layer.role, layer.files.join(" "))).collect();
    let want = [
        (LayerRole::Code, "handler.wasm warmup.json wick.toml".to_owned()),
        (LayerRole::Weights, "weights/model.onnx".to_owned()),
        (LayerRole::Weights, "weights/model.npu.onnx".to_owned()),
    ];
    assert_eq!(layers, want);
    // New code leaves the weights' layers as they were.
    fs::write(scratch.dir().join("handler.wasm"), b"new").unwrap();
    let (_, next) = scratch.pack("next", Format::Folder);
    assert_ne!(next.layers[0].digest, packed.layers[0].digest);
    assert_eq!(next.layers[1..], packed.layers[1..]);
}

#[test]
fn the_index_is_one_image_for_two_platforms_with_its_name() {
    let scratch = Scratch::new();
    let (out, packed) = scratch.pack("out", Format::Folder);
    assert_eq!(packed.reference, "docker.io/library/filetype:1.2.0_local");
    let json = |path: &Path| -> serde_json::Value {
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    };
    let blob = |digest: &serde_json::Value| {
        json(&out.join("blobs").join(digest.as_str().unwrap().replace(':', "/")))
    };
    let top = json(&out.join("index.json"));
    let entries = top["manifests"].as_array().unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0]["mediaType"], "application/vnd.oci.image.index.v1+json");
    assert_eq!(entries[0]["annotations"]["io.containerd.image.name"], packed.reference);
    assert_eq!(entries[0]["annotations"]["org.opencontainers.image.ref.name"], "1.2.0_local");
    let index = blob(&entries[0]["digest"]);
    let manifests = index["manifests"].as_array().unwrap();
    let mut layers = Vec::new();
    for (entry, architecture) in manifests.iter().zip(["amd64", "arm64"]) {
        assert_eq!(entry["platform"]["architecture"], architecture);
        assert_eq!(entry["platform"]["os"], "linux");
        let manifest = blob(&entry["digest"]);
        let config = blob(&manifest["config"]["digest"]);
        assert_eq!(config["architecture"], architecture);
        assert_eq!(config["config"]["Entrypoint"][0], "/wick.toml");
        assert_eq!(config["config"]["Labels"]["dev.wick.package"], "filetype");
        layers.push(manifest["layers"].clone());
    }
    assert_eq!(manifests.len(), 2);
    assert_eq!(layers[0], layers[1]);
}

#[test]
fn layers_are_ordinary_tars_and_the_tar_is_one_too() {
    let scratch = Scratch::new();
    let (out, packed) = scratch.pack("out.tar", Format::Tar);
    let target = scratch.path("unpacked");
    tar::Archive::new(fs::File::open(out).unwrap()).unpack(&target).unwrap();
    let guest = scratch.path("guest");
    for layer in &packed.layers {
        let path = target.join("blobs/sha256").join(layer.digest.unwrap().hex());
        tar::Archive::new(fs::File::open(path).unwrap()).unpack(&guest).unwrap();
    }
    for (name, len) in FILES {
        assert!(fs::read(guest.join(name)).unwrap() == content(name, len), "{name}");
    }
    Package::open(&target).unwrap().verify().unwrap();
}

#[test]
fn paths_of_any_length_survive() {
    let scratch = Scratch::new();
    for path in [
        format!("{}/m.onnx", "d".repeat(120)),
        format!("{0}/{0}/{1}", "d".repeat(200), "m".repeat(250)),
        "größe/модель.onnx".to_owned(),
    ] {
        let dir = scratch.path("long");
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join(&path).parent().unwrap()).unwrap();
        fs::write(dir.join(&path), b"weights").unwrap();
        fs::write(dir.join("wick.toml"), BARE.replace("m.onnx", &path)).unwrap();
        let package = Package::open(&dir).unwrap();
        let out = scratch.path("long.tar");
        let options = Options { format: Format::Tar, reference: "a/b:c".parse().ok() };
        let packed = write_layout(&package, &out, &options, &mut |_| {}).unwrap();
        assert_eq!(packed.reference, "docker.io/a/b:c");
        let blob = Package::open(&out).unwrap().file(&rel(&path)).unwrap();
        assert_eq!(blob.read(100).unwrap(), b"weights");
    }
}

#[test]
fn progress_ends_at_the_total() {
    let scratch = Scratch::new();
    let package = Package::open(&scratch.dir()).unwrap();
    let (mut last, mut total) = (0, 0);
    let options = Options { format: Format::Tar, reference: None };
    let mut progress = |step: Progress<'_>| {
        assert!(step.done > last && step.done <= step.total, "{step:?}");
        (last, total) = (step.done, step.total);
    };
    write_layout(&package, &scratch.path("out.tar"), &options, &mut progress).unwrap();
    assert_eq!(last, total);
    assert_eq!(total, (MANIFEST.len() + FILES.iter().map(|(_, len)| len).sum::<usize>()) as u64);
}

#[test]
fn a_layout_is_replaced_and_anything_else_is_left_alone() {
    let scratch = Scratch::new();
    scratch.pack("out", Format::Folder);
    scratch.pack("out.tar", Format::Tar);
    fs::write(scratch.dir().join("handler.wasm"), b"new").unwrap();
    let (out, _) = scratch.pack("out", Format::Folder);
    let (tar, _) = scratch.pack("out.tar", Format::Tar);
    for path in [out, tar] {
        let blob = Package::open(&path).unwrap().file(&rel("handler.wasm")).unwrap();
        assert_eq!(blob.read(10).unwrap(), b"new");
    }
    let package = Package::open(&scratch.dir()).unwrap();
    fs::write(scratch.path("file"), b"dear").unwrap();
    fs::write(scratch.path("out/notes.txt"), b"dear").unwrap();
    let refused = [
        ("file", Format::Tar),
        ("file", Format::Folder),
        ("package", Format::Folder),
        ("package", Format::Tar),
        ("out", Format::Folder),
        ("out", Format::Tar),
    ];
    for (name, format) in refused {
        let options = Options { format, reference: None };
        let error = write_layout(&package, &scratch.path(name), &options, &mut |_| {}).unwrap_err();
        assert_eq!(error.code(), "output-occupied", "{name}");
    }
    assert_eq!(fs::read(scratch.path("file")).unwrap(), b"dear");
    assert_eq!(fs::read(scratch.path("out/notes.txt")).unwrap(), b"dear");
}

#[test]
fn a_failed_pack_leaves_nothing_behind() {
    let scratch = Scratch::new();
    let package = Package::open(&scratch.dir()).unwrap();
    let names = || {
        let mut names: Vec<_> =
            fs::read_dir(scratch.root.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    for format in [Format::Folder, Format::Tar] {
        let options = Options { format, reference: None };
        let out = scratch.path("out");
        let model = scratch.dir().join("weights/model.onnx");
        // The model is cut short while the layer before it is written.
        let mut cut = |_: Progress<'_>| {
            fs::File::options().write(true).open(&model).unwrap().set_len(7).unwrap();
        };
        let error = write_layout(&package, &out, &options, &mut cut).unwrap_err();
        assert!(matches!(error, PackError::Changed { .. }), "{error:?}");
        assert_eq!(names(), before);
        fs::write(&model, content("weights/model.onnx", 300_001)).unwrap();
        fs::write(scratch.dir().join("wick.toml"), BARE).unwrap();
        let error = write_layout(&package, &out, &options, &mut |_| {}).unwrap_err();
        assert_eq!(error.code(), "package-changed");
        fs::write(scratch.dir().join("wick.toml"), MANIFEST).unwrap();
        let error = write_layout(&package, &scratch.path("no/such/out"), &options, &mut |_| {});
        assert_eq!(error.unwrap_err().code(), "cannot-write");
        assert_eq!(names(), before);
    }
}
