use proptest::prelude::*;
use wick_testing::onnx;

use super::*;

/// The beginning of a zip archive with these entries, contents left out.
fn zip(names: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for name in names {
        bytes.extend(b"PK\x03\x04\x14\x00\x00\x00\x00\x00\x00\x00\x00\x00");
        bytes.extend([0; 12]);
        bytes.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
        bytes.extend([0, 0]);
        bytes.extend(name.as_bytes());
    }
    bytes
}

fn tar() -> Vec<u8> {
    let mut bytes = vec![b'a'; 512];
    bytes[257..262].copy_from_slice(b"ustar");
    bytes
}

#[test]
fn every_kind_is_told_by_its_content() {
    let old_torch = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.";
    let sklearn = b"\x80\x04\x95\x1e\x01\x8c\x1asklearn.linear_model._logistic\x94";
    let safetensors = b"\x40\x00\x00\x00\x00\x00\x00\x00{\"weight\":{\"dtype\":\"F32\"";
    let boost = br#"{"learner":{"attributes":{},"feature_names":[]"#;
    let cases: [(&str, Vec<u8>, Format); 32] = [
        ("f", onnx::dense(8, 1), Format::Onnx),
        ("f", zip(&["archive/data.pkl", "archive/byteorder"]), Format::PyTorch),
        ("m.pt", zip(&["m/data.pkl", "m/code/__torch__.py"]), Format::TorchScript),
        ("f", old_torch.to_vec(), Format::PyTorch),
        ("f", safetensors.to_vec(), Format::Safetensors),
        ("saved_model.pb", b"\x08\x01\x12\x80\x01\x0a\x10".to_vec(), Format::SavedModel),
        ("frozen.pb", b"\x0a\x10\x0a\x01x".to_vec(), Format::FrozenGraph),
        ("f", zip(&["metadata.json", "config.json", "model.weights.h5"]), Format::KerasZip),
        ("f", b"\x89HDF\r\n\x1a\n\x00".to_vec(), Format::Hdf5),
        ("f", b"\x1c\x00\x00\x00TFL3\x14".to_vec(), Format::TfLite),
        ("f", b"GGUF\x03\x00\x00\x00".to_vec(), Format::Gguf),
        ("f", b"ftrt\x00\x00\x00\x00".to_vec(), Format::TensorRt),
        (
            "f",
            b"<?xml version=\"1.0\"?>\n<net name=\"m\" version=\"11\">".to_vec(),
            Format::OpenVino,
        ),
        ("f", sklearn.to_vec(), Format::ScikitLearn),
        ("f", b"\x80\x04\x95\x05\x8c\x08builtins".to_vec(), Format::Pickle),
        ("f", boost.to_vec(), Format::XgBoost),
        ("f", b"{L\x00\x00\x00\x00\x00\x00\x00\x07learner".to_vec(), Format::XgBoost),
        ("f", b"tree\nversion=v4\nnum_class=1\n".to_vec(), Format::LightGbm),
        (
            "f",
            br#"{"name":"tree","version":"v4","num_tree_per_iteration":1"#.to_vec(),
            Format::LightGbm,
        ),
        ("f", b"CBM1\x00".to_vec(), Format::CatBoost),
        ("m.mlmodel", b"\x08\x04\x12\x80\x01\x0a".to_vec(), Format::CoreMl),
        ("m.pdmodel", b"\x0a\xb0\x1a\x08\x00".to_vec(), Format::Paddle),
        ("f", b"\x93NUMPY\x01".to_vec(), Format::Numpy),
        ("f", zip(&["readme.txt"]), Format::Zip),
        ("f", b"\x1f\x8b\x08".to_vec(), Format::Gzip),
        ("f", b"\x28\xb5\x2f\xfd".to_vec(), Format::Zstd),
        ("f", tar(), Format::Tar),
        ("f", b"version https://git-lfs.github.com/spec/v1\noid".to_vec(), Format::LfsPointer),
        ("f", b"\n<!DOCTYPE html><html>".to_vec(), Format::Html),
        // By name, where the content says nothing.
        ("m.engine", b"\x00\x01\x02".to_vec(), Format::TensorRt),
        ("wick.toml", b"[package]".to_vec(), Format::Wick),
        ("dir/Model.ONNX", b"garbage".to_vec(), Format::Onnx),
    ];
    for (name, head, format) in cases {
        let head = &head[..head.len().min(HEAD)];
        assert_eq!(recognise(name, head), Some(format), "{name} {head:?}");
    }
}

#[test]
fn content_wins_over_a_name_that_lies() {
    assert_eq!(recognise("model.onnx", b"GGUF\x03"), Some(Format::Gguf));
    assert_eq!(recognise("model.onnx", &zip(&["a/data.pkl"])), Some(Format::PyTorch));
    assert_eq!(recognise("model.onnx", b"<html>"), Some(Format::Html));
}

#[test]
fn other_files_are_nothing() {
    for (name, head) in [
        ("README.md", &b"# Model"[..]),
        ("config.json", br#"{"model_type": "bert"}"#),
        ("tokenizer.json", br#"{"version": "1.0"}"#),
        ("empty", b""),
        ("a.xml", b"<?xml version=\"1.0\"?><svg/>"),
    ] {
        assert_eq!(recognise(name, head), None, "{name}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_looked_at_without_a_panic(name: String, head: Vec<u8>, mark in 0..8_usize) {
        let marks: [&[u8]; 8] = [b"", b"PK\x03\x04", b"\x80\x02", b"{", b"<", b"\x08\x07", b"tree\n", b"\x0a"];
        let head = [marks[mark], &head].concat();
        if let Some(format) = recognise(&name, &head) {
            prop_assert!(!format.what().is_empty() && !format.advice().is_empty());
        }
    }
}
