//! ModelPack and KitOps artifacts in image layouts. The layouts are written as the
//! specifications say: neither project's tool can be had from a package registry.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use serde_json::{Value, json};
use wick_package::Digest;
use wick_testing::onnx;

use crate::support::{Bench, model};

const MODELPACK: &str = "application/vnd.cncf.model";
const KITOPS: &str = "application/vnd.kitops.modelkit";

/// A layout that grows.
struct Layout {
    root: PathBuf,
    manifests: Vec<Value>,
}

impl Layout {
    fn new(bench: &Bench) -> Self {
        let root = bench.path("layout");
        fs::create_dir_all(root.join("blobs/sha256")).unwrap();
        fs::write(root.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Self { root, manifests: Vec::new() }
    }

    fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = Digest::of(bytes);
        fs::write(self.root.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    /// Add an artifact; its digest.
    fn artifact(&mut self, tag: &str, family: &str, config: &Value, layers: Vec<Value>) -> String {
        let config = self.blob(&format!("{family}.config.v1+json"), config.to_string().as_bytes());
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "artifactType": format!("{family}.manifest.v1+json"),
            "config": config,
            "layers": layers,
        });
        let mut descriptor = self
            .blob("application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes());
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        let digest = descriptor["digest"].as_str().unwrap().to_owned();
        self.manifests.push(descriptor);
        let index = json!({"schemaVersion": 2, "manifests": self.manifests});
        fs::write(self.root.join("index.json"), index.to_string()).unwrap();
        digest
    }
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        // `append_data` would refuse a name that leads out.
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        builder.append(&header, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn named(mut layer: Value, path: &str) -> Value {
    layer["annotations"] = json!({"org.cncf.model.filepath": path});
    layer
}

#[test]
fn a_modelpack_artifact_becomes_a_package_whichever_way_it_is_packed() {
    let bytes = onnx::dense(64, 2);
    let archive = tar(&[("./net/model.onnx", &bytes), ("net/config.json", b"{}")]);
    let packings: BTreeMap<&str, Vec<u8>> = BTreeMap::from([
        ("raw", bytes.clone()),
        ("tar", archive.clone()),
        ("tar+gzip", gzip(&archive)),
        ("tar+zstd", zstd::encode_all(archive.as_slice(), 1).unwrap()),
    ]);
    for (packing, layer) in packings {
        let mut bench = Bench::new();
        let mut layout = Layout::new(&bench);
        let config = json!({
            "descriptor": {"name": "acme/Tiny Net", "version": "1.4", "description": "Small."},
            "config": {"format": "onnx"},
            "modelfs": {"type": "layers", "diffIds": []},
        });
        let weight = layout.blob(&format!("{MODELPACK}.weight.v1.{packing}"), &layer);
        let doc = layout.blob(&format!("{MODELPACK}.doc.v1.raw"), b"a.onnx is no model");
        let layers = vec![named(weight, "net/model.onnx"), named(doc, "doc.onnx")];
        layout.artifact("v1", MODELPACK, &config, layers);
        let (imported, package) = bench.import(&layout.root);
        assert_eq!(imported.name.as_str(), "acme-tiny-net");
        assert_eq!(imported.version.to_string(), "1.4.0");
        assert_eq!(package.manifest().description.as_deref(), Some("Small."));
        assert_eq!(imported.model.as_str(), "net/model.onnx");
        assert_eq!(model(&package), bytes, "{packing}");
    }
}

#[test]
fn weights_in_layers_of_their_own_are_found() {
    let mut bench = Bench::new();
    let mut layout = Layout::new(&bench);
    let net = layout.blob(&format!("{MODELPACK}.weight.v1.raw"), &onnx::external_data("w.bin"));
    let weights =
        layout.blob(&format!("{MODELPACK}.weight.v1.tar"), &tar(&[("m/w.bin", &[7; 16])]));
    layout.artifact("v1", MODELPACK, &json!({}), vec![named(net, "m/net.onnx"), weights]);
    let (imported, package) = bench.import(&layout.root);
    // A tag like `v1` says less than the file's name.
    assert_eq!(imported.name.as_str(), "net");
    assert!(model(&package).windows(16).any(|window| window == [7; 16]));
}

#[test]
fn a_modelkit_becomes_a_package() {
    let mut bench = Bench::new();
    let mut layout = Layout::new(&bench);
    let bytes = onnx::sum(&[4]);
    let kitfile = json!({
        "manifestVersion": "1.0.0",
        "package": {"name": "Churn", "version": "2.0.1", "description": "Who leaves?"},
        "model": {"name": "churn", "path": "./models/churn.onnx", "framework": "onnx"},
    });
    let archive = gzip(&tar(&[("models/churn.onnx", &bytes), ("models/old.onnx", b"x")]));
    let net = layout.blob(&format!("{KITOPS}.model.v1.tar+gzip"), &archive);
    let data = layout.blob(&format!("{KITOPS}.dataset.v1.tar"), &tar(&[("d.csv", b"1")]));
    layout.artifact("latest", KITOPS, &kitfile, vec![net, data]);
    let (imported, package) = bench.import(&layout.root);
    assert_eq!((imported.name.as_str(), imported.version.to_string().as_str()), ("churn", "2.0.1"));
    assert_eq!(model(&package), bytes);
}

#[test]
fn one_of_several_artifacts_is_named_by_tag_or_digest() {
    let mut bench = Bench::new();
    let mut layout = Layout::new(&bench);
    let mut digests = Vec::new();
    for (tag, size) in [("v1", 1), ("v2", 2)] {
        let net = layout.blob(&format!("{MODELPACK}.weight.v1.raw"), &onnx::sum(&[size]));
        let layers = vec![named(net, "net.onnx")];
        digests.push(layout.artifact(tag, MODELPACK, &json!({"v": size}), layers));
    }
    let root = layout.root.clone();
    let text = bench.refuse(&root, "no-single-model");
    assert!(text.contains("v1, v2") && text.contains("--reference"), "{text}");
    for (reference, shape) in [("v2", "[2]"), (digests[0].as_str(), "[1]")] {
        bench.settings.reference = Some(reference.to_owned());
        bench.settings.out = Some(bench.path(&format!("out{shape}")));
        let (_, package) = bench.import(&root);
        assert_eq!(package.manifest().inputs[0].shape_text(), shape);
    }
    bench.settings.reference = Some("v3".to_owned());
    bench.settings.out = Some(bench.path("out"));
    bench.refuse(&root, "not-a-model");
}

#[test]
fn an_artifact_without_onnx_says_what_it_holds() {
    let mut bench = Bench::new();
    let mut layout = Layout::new(&bench);
    let net = layout.blob(&format!("{MODELPACK}.weight.v1.raw"), b"GGUF\x03\0\0\0");
    layout.artifact("v1", MODELPACK, &json!({}), vec![named(net, "llama.gguf")]);
    let text = bench.refuse(&layout.root, "other-format");
    assert!(text.contains("GGUF"), "{text}");
}

#[test]
fn damaged_blobs_are_refused() {
    let mut bench = Bench::new();
    let mut layout = Layout::new(&bench);
    let bytes = onnx::sum(&[4]);
    let net = layout.blob(&format!("{MODELPACK}.weight.v1.raw"), &bytes);
    let blob = layout.root.join("blobs/sha256").join(Digest::of(&bytes).hex());
    layout.artifact("v1", MODELPACK, &json!({}), vec![named(net, "net.onnx")]);
    let mut other = bytes.clone();
    other[10] ^= 1;
    fs::write(&blob, &other).unwrap();
    let text = bench.refuse(&layout.root, "damaged-artifact");
    assert!(text.contains(&Digest::of(&bytes).to_string()), "{text}");
    fs::write(&blob, &bytes[1..]).unwrap();
    bench.refuse(&layout.root, "damaged-artifact");
    fs::remove_file(&blob).unwrap();
    bench.refuse(&layout.root, "not-found");
    fs::write(layout.root.join("index.json"), "{").unwrap();
    bench.refuse(&layout.root, "damaged-artifact");
}

#[test]
fn paths_that_lead_out_of_a_layer_are_refused() {
    for path in ["../evil.onnx", "/etc/evil.onnx", "a/../../evil.onnx"] {
        let bytes = onnx::sum(&[4]);
        let mut bench = Bench::new();
        let mut layout = Layout::new(&bench);
        let net = layout.blob(&format!("{MODELPACK}.weight.v1.tar"), &tar(&[(path, &bytes)]));
        layout.artifact("v1", MODELPACK, &json!({}), vec![net]);
        bench.refuse(&layout.root, "leaves-folder");
        let mut layout = Layout::new(&bench);
        let net = layout.blob(&format!("{MODELPACK}.weight.v1.raw"), &bytes);
        layout.artifact("v1", MODELPACK, &json!({}), vec![named(net, path)]);
        bench.refuse(&layout.root, "leaves-folder");
    }
}

#[test]
fn links_in_a_layer_are_not_taken() {
    let mut bench = Bench::new();
    let mut layout = Layout::new(&bench);
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "model.onnx", "/etc/passwd").unwrap();
    let archive = builder.into_inner().unwrap();
    let net = layout.blob(&format!("{MODELPACK}.weight.v1.tar"), &archive);
    layout.artifact("v1", MODELPACK, &json!({}), vec![net]);
    bench.refuse(&layout.root, "no-single-model");
}

/// A header of a kind that says what its body has, and a name.
fn header(kind: tar::EntryType, name: &str, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_cksum();
    header
}

/// A layer of these bytes, packed so that they take next to nothing.
fn refuse_layer(bytes: &[u8], code: &str) -> String {
    let mut bench = Bench::new();
    let mut layout = Layout::new(&bench);
    let net = layout.blob(&format!("{MODELPACK}.weight.v1.tar+gzip"), &gzip(bytes));
    layout.artifact("v1", MODELPACK, &json!({}), vec![net]);
    bench.refuse(&layout.root, code)
}

#[test]
fn names_and_notes_in_a_layer_are_bounded() {
    use tar::EntryType;
    let model = tar(&[("model.onnx", &onnx::sum(&[4]))]);
    for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader] {
        // More than is read, although all of it is there.
        let size = 3 << 20;
        let mut archive = header(kind, "long", size).as_bytes().to_vec();
        archive.resize(archive.len() + size as usize, b'a');
        archive.extend(&model);
        let text = refuse_layer(&archive, "damaged-artifact");
        assert!(text.contains("headers of a file have more than 1048576 bytes"), "{text}");
    }
}

#[test]
fn a_layer_with_very_many_entries_is_refused_whatever_they_are() {
    let folder = header(tar::EntryType::Directory, "a", 0);
    let mut archive = folder.as_bytes().repeat(80_001);
    archive.extend(tar(&[("model.onnx", &onnx::sum(&[4]))]));
    let text = refuse_layer(&archive, "source-too-large");
    assert!(text.contains("more than 80000 files or folders"), "{text}");
}

#[test]
fn a_file_that_is_larger_than_is_taken_is_refused_by_its_header() {
    let mut archive = header(tar::EntryType::Regular, "model.onnx", 1 << 40).as_bytes().to_vec();
    archive.extend([0; 4096]);
    let text = refuse_layer(&archive, "source-too-large");
    assert!(text.contains("model.onnx of") && text.contains("--max-size"), "{text}");
}

#[test]
fn a_blob_is_copied_and_never_linked() {
    use std::os::unix::fs::MetadataExt as _;
    let mut bench = Bench::new();
    let mut layout = Layout::new(&bench);
    let bytes = onnx::sum(&[4]);
    let net = layout.blob(&format!("{MODELPACK}.weight.v1.raw"), &bytes);
    layout.artifact("v1", MODELPACK, &json!({}), vec![named(net, "net.onnx")]);
    bench.settings.hard_link = true;
    let (imported, _) = bench.import(&layout.root);
    let blob = layout.root.join("blobs/sha256").join(Digest::of(&bytes).hex());
    assert_eq!(fs::metadata(blob).unwrap().nlink(), 1);
    assert!(imported.notes.iter().all(|note| !note.contains("linked")), "{:?}", imported.notes);
}

#[test]
fn an_ordinary_image_is_no_model() {
    let mut bench = Bench::new();
    let mut layout = Layout::new(&bench);
    let layer = layout.blob("application/vnd.oci.image.layer.v1.tar", &tar(&[("m.onnx", b"x")]));
    layout.artifact("v1", "application/vnd.oci.image", &json!({}), vec![layer]);
    bench.refuse(&layout.root, "not-a-model");
}
