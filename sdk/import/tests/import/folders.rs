//! Files and folders on this disk.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};

use wick_package::{Datatype, Digest};
use wick_testing::onnx;

use crate::support::{Bench, model};

#[test]
fn a_file_becomes_a_package_that_says_what_its_graph_says() {
    let mut bench = Bench::new();
    let bytes = onnx::subtract(&[-1, 3]);
    let source = bench.write("My Net_v2.onnx", &bytes);
    let (imported, package) = bench.import(source);
    assert_eq!(imported.name.as_str(), "my-net-v2");
    assert_eq!(imported.version.to_string(), "0.1.0");
    let manifest = package.manifest();
    let shown: Vec<_> = manifest.inputs.iter().chain(&manifest.outputs).collect();
    let shown: Vec<_> =
        shown.iter().map(|s| format!("{} {} {}", s.name, s.datatype, s.shape_text())).collect();
    assert_eq!(shown, ["a FP32 [-1, 3]", "b FP32 [-1, 3]", "y FP32 [-1, 3]"]);
    assert_eq!(model(&package), bytes);
    assert_eq!(bench.progress, [("model.onnx".to_owned(), bytes.len() as u64)]);
}

#[test]
fn name_version_and_folder_can_be_chosen() {
    let mut bench = Bench::new();
    let source = bench.write("a.onnx", onnx::identity(Datatype::Bytes, &[-1]));
    bench.settings.name = Some("other".parse().unwrap());
    bench.settings.version = Some("2.3.4".parse().unwrap());
    bench.settings.out = Some(bench.path("deep/er/dir"));
    let (imported, package) = bench.import(source);
    assert_eq!(imported.path, bench.path("deep/er/dir"));
    assert_eq!(package.manifest().version.to_string(), "2.3.4");
    assert_eq!(package.manifest().inputs[0].datatype, Datatype::Bytes);
}

#[test]
fn a_folder_that_is_in_use_is_left_alone() {
    let mut bench = Bench::new();
    let source = bench.write("a.onnx", onnx::sum(&[2]));
    bench.write("out/mine", "mine");
    let text = bench.refuse(source, "exists");
    assert!(text.contains("-o"), "{text}");
    assert_eq!(fs::read_to_string(bench.path("out/mine")).unwrap(), "mine");
    assert_eq!(fs::read_dir(bench.path("out")).unwrap().count(), 1);
}

#[test]
fn weights_in_other_files_are_put_into_the_model() {
    let mut bench = Bench::new();
    let weights: Vec<u8> = [1.0_f32, 2.0, 3.0, 4.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    bench.write("net/parts/weights.bin", &weights);
    let source = bench.write("net/net.onnx", onnx::external_data("parts/weights.bin"));
    let (imported, package) = bench.import(&source);
    let bytes = model(&package);
    assert!(bytes.windows(16).any(|window| window == weights), "the weights are in it");
    assert!(!bytes.windows(11).any(|window| window == b"weights.bin"), "and nowhere else");
    assert!(imported.notes.iter().any(|note| note.contains("1 files")), "{:?}", imported.notes);
    // The same by the folder.
    bench.settings.out = Some(bench.path("again"));
    let (_, again) = bench.import(bench.path("net"));
    assert_eq!(model(&again), bytes);
}

#[test]
fn weights_that_no_onnx_file_can_hold_stay_beside_the_model() {
    let mut bench = Bench::new();
    // 600,000,000 numbers of four bytes, in a file without blocks.
    let field = onnx::field;
    let entry = [field(1, b"location"), field(2, b"w/huge.bin")].concat();
    let tensor =
        [&b"\x08\x80\x8c\x8d\x9e\x02\x10\x01\x70\x01"[..], &field(8, b"huge"), &field(13, &entry)];
    let mut model = onnx::sum(&[2]);
    // A graph that is there twice is joined by every reader.
    model.extend(field(7, &field(5, &tensor.concat())));
    let source = bench.write("net/net.onnx", &model);
    let huge = bench.write("net/w/huge.bin", "");
    fs::File::options().write(true).open(&huge).unwrap().set_len(2_400_000_000).unwrap();
    bench.settings.max_size = 4 << 30;
    bench.settings.hard_link = true;
    let (imported, package) = bench.import(&source);
    assert_eq!(model, crate::support::model(&package));
    let kept = fs::metadata(imported.path.join("w/huge.bin")).unwrap();
    assert_eq!(kept.ino(), fs::metadata(&huge).unwrap().ino());
    assert!(imported.notes.iter().any(|note| note.contains("2 GiB")), "{:?}", imported.notes);
}

#[test]
fn weights_that_are_missing_or_short_are_named() {
    let mut bench = Bench::new();
    let source = bench.write("net/net.onnx", onnx::external_data("weights.bin"));
    let text = bench.refuse(&source, "not-found");
    assert!(text.contains("weights.bin"), "{text}");
    bench.write("net/weights.bin", [0; 15]);
    let text = bench.refuse(&source, "model-invalid");
    assert!(text.contains("not complete") && text.contains("copy the model together"), "{text}");
}

#[test]
fn weights_outside_of_the_folder_are_never_read() {
    let mut bench = Bench::new();
    let secret = bench.write("secret.bin", [7; 16]);
    let source = bench.write("net/up.onnx", onnx::external_data("../secret.bin"));
    bench.refuse(&source, "model-invalid");
    let absolute = onnx::external_data(secret.to_str().unwrap());
    let source = bench.write("net/absolute.onnx", absolute);
    bench.refuse(&source, "model-invalid");
    let source = bench.write("net/link.onnx", onnx::external_data("link.bin"));
    symlink(&secret, bench.path("net/link.bin")).unwrap();
    let text = bench.refuse(&source, "leaves-folder");
    assert!(text.contains("secret.bin") && text.contains("--follow-links"), "{text}");
    bench.settings.follow_links = true;
    bench.import(&source);
}

#[test]
fn a_folder_with_several_models_needs_a_choice() {
    let mut bench = Bench::new();
    bench.write("ocr/det.onnx", onnx::sum(&[2]));
    bench.write("ocr/rec.onnx", onnx::sum(&[3]));
    let text = bench.refuse(bench.path("ocr"), "no-single-model");
    assert!(text.contains("det.onnx, rec.onnx") && text.contains("--model"), "{text}");
    bench.settings.model = Some("rec.onnx".to_owned());
    let (imported, package) = bench.import(bench.path("ocr"));
    assert_eq!(imported.name.as_str(), "rec");
    assert_eq!(package.manifest().inputs[0].shape_text(), "[3]");
}

#[test]
fn what_is_not_onnx_is_named_with_the_tool_that_converts_it() {
    let mut bench = Bench::new();
    let torch = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.".to_vec();
    let cases: [(&str, Vec<u8>, &str, &str); 7] = [
        ("a/model.onnx", b"GGUF\x03".to_vec(), "GGUF", "llama.cpp"),
        ("b/pytorch_model.bin", torch, "PyTorch", "torch.onnx.export"),
        (
            "c/model.safetensors",
            b"\x08\0\0\0\0\0\0\0{\"a\":1}".to_vec(),
            "safetensors",
            "optimum-cli",
        ),
        ("d/net.tflite", b"\x1c\0\0\0TFL3".to_vec(), "Lite", "tf2onnx"),
        ("e/net.h5", b"\x89HDF\r\n\x1a\n".to_vec(), "Keras", "format=\"onnx\""),
        ("f/net.pkl", b"\x80\x04\x95sklearn.svm".to_vec(), "scikit-learn", "skl2onnx"),
        ("g/saved_model.pb", b"\x08\x01\x12\x05".to_vec(), "SavedModel", "--saved-model"),
    ];
    for (name, bytes, what, tool) in cases {
        let path = bench.write(name, bytes);
        bench.write(&format!("{}/config.json", name.split('/').next().unwrap()), "{}");
        for source in [path.as_path(), path.parent().unwrap()] {
            // A folder with a model by its name is looked into like the file.
            let text = bench.refuse(source, "other-format");
            assert!(text.contains(what) && text.contains(tool), "{name}: {text}");
        }
    }
    let text = bench.refuse(bench.write("notes.txt", "hello"), "unknown-format");
    assert!(text.contains("ONNX"), "{text}");
    bench.refuse(bench.path("nothing"), "not-found");
    bench.write("h/wick.toml", "[package]");
    let text = bench.refuse(bench.path("h"), "other-format");
    assert!(text.contains("wick run"), "{text}");
}

#[test]
fn a_damaged_model_is_refused_and_nothing_is_left() {
    let mut bench = Bench::new();
    let whole = onnx::dense(64, 2);
    let source = bench.write("cut.onnx", &whole[..whole.len() / 2]);
    let text = bench.refuse(source, "model-invalid");
    assert!(text.contains("cut.onnx") && text.contains("check_model"), "{text}");
    let source = bench.write("empty.onnx", "");
    bench.refuse(source, "model-invalid");
}

#[test]
fn a_digest_that_differs_is_refused() {
    let mut bench = Bench::new();
    let bytes = onnx::sum(&[2]);
    let source = bench.write("a.onnx", &bytes);
    bench.settings.sha256 = Some(Digest::of(b"other"));
    let text = bench.refuse(&source, "wrong-digest");
    assert!(text.contains(&Digest::of(&bytes).to_string()), "{text}");
    bench.settings.sha256 = Some(Digest::of(&bytes));
    bench.import(&source);
}

#[test]
fn a_file_that_is_too_large_is_refused() {
    let mut bench = Bench::new();
    let source = bench.write("a.onnx", onnx::dense(64, 2));
    bench.settings.max_size = 1000;
    let text = bench.refuse(source, "source-too-large");
    assert!(text.contains("--max-size"), "{text}");
}

#[test]
fn a_dry_run_writes_nothing_and_says_what_would_be() {
    let mut bench = Bench::new();
    let source = bench.write("net.onnx", onnx::sum(&[2]));
    bench.settings.dry_run = true;
    bench.settings.out = Some(bench.path("deep/out"));
    let imported = bench.try_import(source.to_str().unwrap()).unwrap();
    assert_eq!(imported.name.as_str(), "net");
    assert_eq!(imported.signature.unwrap().inputs.unwrap()[0].name, "x");
    let names: Vec<_> = fs::read_dir(bench.folder.path()).unwrap().collect();
    assert_eq!(names.len(), 1, "{names:?}");
}

#[test]
fn a_model_can_be_linked_and_says_so() {
    let mut bench = Bench::new();
    let source = bench.write("net.onnx", onnx::sum(&[2]));
    bench.settings.hard_link = true;
    let (imported, _) = bench.import(&source);
    assert!(imported.notes.iter().any(|note| note.contains("linked")), "{:?}", imported.notes);
    let inode = |path: &std::path::Path| fs::metadata(path).unwrap().ino();
    assert_eq!(inode(&source), inode(&bench.path("out/model.onnx")));
}

/// Hugging Face's cache: blobs by their digest, and links to them under names.
fn cache(bench: &Bench) -> std::path::PathBuf {
    let root = bench.path("hub/models--acme--Tiny-Net");
    let revision = "0123456789abcdef0123456789abcdef01234567";
    let snapshot = root.join("snapshots").join(revision);
    bench.write("hub/models--acme--Tiny-Net/blobs/aaaa", onnx::sum(&[5]));
    bench.write("hub/models--acme--Tiny-Net/blobs/bbbb", onnx::sum(&[6]));
    bench.write("hub/models--acme--Tiny-Net/blobs/cccc", "{}");
    bench.write("hub/models--acme--Tiny-Net/refs/main", revision);
    fs::create_dir_all(snapshot.join("onnx")).unwrap();
    symlink("../../../blobs/aaaa", snapshot.join("onnx/model.onnx")).unwrap();
    symlink("../../../blobs/bbbb", snapshot.join("onnx/model_quantized.onnx")).unwrap();
    symlink("../../blobs/cccc", snapshot.join("config.json")).unwrap();
    snapshot
}

#[test]
fn a_snapshot_of_hugging_face_is_taken_by_its_folder_its_model_or_its_file() {
    let mut bench = Bench::new();
    let snapshot = cache(&bench);
    let repository = bench.path("hub/models--acme--Tiny-Net");
    for (number, source) in
        [&snapshot, &repository, &snapshot.join("onnx/model.onnx")].into_iter().enumerate()
    {
        bench.settings.out = Some(bench.path(&format!("out{number}")));
        let (imported, package) = bench.import(source);
        assert_eq!(imported.name.as_str(), "tiny-net");
        assert_eq!(package.manifest().inputs[0].shape_text(), "[5]");
        assert!(imported.notes.iter().any(|note| note.contains("blobs")), "{:?}", imported.notes);
        let placed = fs::symlink_metadata(imported.path.join("model.onnx")).unwrap();
        assert!(placed.is_file(), "the package has the bytes, not a link");
    }
    bench.settings.out = Some(bench.path("quantized"));
    bench.settings.model = Some("onnx/model_quantized.onnx".to_owned());
    let (_, package) = bench.import(&snapshot);
    assert_eq!(package.manifest().inputs[0].shape_text(), "[6]");
}

#[test]
fn a_snapshot_whose_links_lead_elsewhere_is_refused() {
    let mut bench = Bench::new();
    let snapshot = cache(&bench);
    let secret = bench.write("secret.onnx", onnx::sum(&[9]));
    fs::remove_file(snapshot.join("onnx/model.onnx")).unwrap();
    symlink(&secret, snapshot.join("onnx/model.onnx")).unwrap();
    let text = bench.refuse(&snapshot, "leaves-folder");
    assert!(text.contains("secret.onnx"), "{text}");
}

#[test]
fn a_plain_snapshot_folder_is_taken_too() {
    let mut bench = Bench::new();
    bench.write("bert/config.json", "{}");
    bench.write("bert/onnx/model.onnx", onnx::sum(&[2]));
    bench.write("bert/onnx/model_fp16.onnx", onnx::sum(&[3]));
    bench.write("bert/model.safetensors", b"\x08\0\0\0\0\0\0\0{\"a\":1}");
    let (imported, _) = bench.import(bench.path("bert"));
    assert_eq!((imported.name.as_str(), imported.model.as_str()), ("bert", "onnx/model.onnx"));
}

#[test]
fn a_folder_that_mlflow_saved_says_which_file_is_the_model() {
    let mut bench = Bench::new();
    bench.write("saved/MLmodel", "flavors:\n  onnx:\n    data: net.onnx\n");
    bench.write("saved/net.onnx", onnx::sum(&[2]));
    bench.write("saved/other.onnx", onnx::sum(&[3]));
    let (imported, _) = bench.import(bench.path("saved"));
    assert_eq!(imported.model.as_str(), "net.onnx");
    bench.settings.out = Some(bench.path("other"));
    bench.write("sk/MLmodel", "flavors:\n  sklearn:\n    pickled_model: model.pkl\n");
    let text = bench.refuse(bench.path("sk"), "other-format");
    assert!(text.contains("sklearn") && text.contains("skl2onnx"), "{text}");
}
