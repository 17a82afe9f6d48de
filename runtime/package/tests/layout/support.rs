//! A small package, and layouts made by hand.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use wick_package::pack::{Format, Options, Packed, write_layout};
use wick_package::{Digest, OpenError, Package, RelPath};

pub const MANIFEST: &str = r#"
[package]
name = "filetype"
version = "1.2.0+local"
description = "Says what a file is"
[handler]
component = "handler.wasm"
[[graph]]
name = "magika"
path = "weights/model.onnx"
devices = ["npu", "cpu"]
[[graph.variant]]
device = "npu"
path = "weights/model.npu.onnx"
[[graph]]
name = "again"
path = "weights/model.onnx"
[warmup]
request = "warmup.json"
"#;

pub const FILES: [(&str, usize); 4] = [
    ("handler.wasm", 5000),
    ("warmup.json", 17),
    ("weights/model.onnx", 300_001),
    ("weights/model.npu.onnx", 512),
];

/// A folder that is removed with the value, holding a package in `package`.
pub struct Scratch {
    pub root: TempDir,
}

impl Scratch {
    pub fn new() -> Self {
        let root = TempDir::new().unwrap();
        let dir = root.path().join("package");
        fs::create_dir_all(dir.join("weights")).unwrap();
        fs::write(dir.join("wick.toml"), MANIFEST).unwrap();
        for (name, len) in FILES {
            fs::write(dir.join(name), content(name, len)).unwrap();
        }
        Self { root }
    }

    pub fn dir(&self) -> PathBuf {
        self.root.path().join("package")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Pack the package under a name.
    pub fn pack(&self, name: &str, format: Format) -> (PathBuf, Packed) {
        let package = Package::open(&self.dir()).unwrap();
        let out = self.path(name);
        let options = Options { format, reference: None };
        let packed = write_layout(&package, &out, &options, &mut |_| {}).unwrap();
        (out, packed)
    }
}

/// Bytes that differ from file to file and from place to place.
pub fn content(name: &str, len: usize) -> Vec<u8> {
    let seed = name.len() as u64;
    (0..len as u64).map(|n| ((n * 31 + seed * 7) ^ (n >> 8)) as u8).collect()
}

pub fn rel(path: &str) -> RelPath {
    path.parse().unwrap()
}

pub fn open_error(path: &Path) -> OpenError {
    match Package::open(path) {
        Ok(_) => panic!("{} opened", path.display()),
        Err(error) => error,
    }
}

/// Put a blob into a layout folder.
pub fn put(root: &Path, bytes: &[u8]) -> Digest {
    let digest = Digest::of(bytes);
    let folder = root.join("blobs/sha256");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(digest.hex()), bytes).unwrap();
    digest
}

pub fn put_json(root: &Path, value: &Value) -> (Digest, usize) {
    let bytes = serde_json::to_vec(value).unwrap();
    (put(root, &bytes), bytes.len())
}

pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// Put an image with these layers into a layout folder; gives its descriptor.
pub fn put_image(root: &Path, layers: &[(&str, Vec<u8>)], architecture: &str) -> Value {
    let mut descriptors = Vec::new();
    let mut diff_ids = Vec::new();
    for (media_type, bytes) in layers {
        let digest = put(root, bytes);
        diff_ids.push(digest.to_string());
        descriptors.push(
            json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()}),
        );
    }
    let config = json!({"architecture": architecture, "os": "linux", "config": {"Env": null},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let (config, config_len) = put_json(root, &config);
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "layers": descriptors,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": config.to_string(), "size": config_len}});
    let (digest, len) = put_json(root, &manifest);
    json!({"mediaType": MANIFEST_TYPE, "digest": digest.to_string(), "size": len,
        "platform": {"architecture": architecture, "os": "linux"}})
}

/// Finish a layout folder.
pub fn put_index(root: &Path, manifests: &[Value]) {
    fs::write(root.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let index = json!({"schemaVersion": 2, "manifests": manifests});
    fs::write(root.join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
}

/// A layout folder with one image of these layers.
pub fn layout_of(root: &Path, layers: &[(&str, Vec<u8>)]) {
    fs::create_dir_all(root).unwrap();
    let image = put_image(root, layers, "amd64");
    put_index(root, &[image]);
}

/// A tar with these files.
pub fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

/// A tar with one entry of any kind and any name.
pub fn tar_with(kind: tar::EntryType, name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_entry_type(kind);
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_cksum();
    let mut tar = header.as_bytes().to_vec();
    tar.extend_from_slice(bytes);
    tar.resize(tar.len().next_multiple_of(512) + 1024, 0);
    tar
}

pub const BARE: &str = "[package]\nname = \"a\"\nversion = \"1.0.0\"\n\
    [[graph]]\nname = \"m\"\npath = \"m.onnx\"\n";

/// The layers of a package without handler.
pub fn bare_layers() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        (LAYER, tar_of(&[("wick.toml", BARE.as_bytes())])),
        (LAYER, tar_of(&[("m.onnx", b"weights")])),
    ]
}
