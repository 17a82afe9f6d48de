//! Files that are no models: an error, never the end of the process.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use wick_nn::{GraphHandle, LoadError, Tensor};
use wick_package::{Dim, Reason as _};
use wick_testing::onnx;

use crate::common::{Which, block_on, load, load_with, nn, on_every_backend, source_file, spec};

/// Mutations of each model. Each takes about a millisecond.
const MUTATIONS: u32 = 300;

on_every_backend! {
    empty_and_garbage_files_are_refused,
    a_model_that_breaks_off_anywhere_is_refused,
    mutated_models_never_end_the_process,
    models_that_cannot_be_served_say_why,
    weights_in_another_file_are_taken_from_beside_the_model_or_not_at_all,
    a_file_that_is_shorter_than_it_was_is_an_error,
}

fn empty_and_garbage_files_are_refused(which: Which) {
    let cases = [
        (Vec::new(), "empty"),
        (b"PK\x03\x04 this is a zip file".to_vec(), "ONNX"),
        (vec![0; 4096], "ONNX"),
        (vec![0xff; 4096], "ONNX"),
        (br#"{"a": "JSON file"}"#.to_vec(), "ONNX"),
        (vec![0x3a, 0], "outputs"),
    ];
    for (bytes, want) in cases {
        let error = load(which, bytes).err().expect("this is no model");
        assert_eq!(error.code(), "graph-invalid");
        assert!(error.to_string().contains(want), "{error}");
    }
}

fn a_model_that_breaks_off_anywhere_is_refused(which: Which) {
    let model = onnx::dense(8, 2);
    for end in 0..model.len() {
        // The last fields of the file hold nothing that a graph needs, so a few of
        // the longest may still be whole.
        if let Ok(graph) = load(which, model[..end].to_vec()) {
            assert!(end + 64 > model.len(), "{end} of {} bytes were enough", model.len());
            exercise(&graph);
        }
    }
}

fn mutated_models_never_end_the_process(which: Which) {
    let models = [
        onnx::dense(8, 2),
        onnx::with_if(),
        onnx::qdq_int8(),
        onnx::identity(wick_package::Datatype::Bytes, &[-1]),
        onnx::gather(4),
    ];
    let config = Config { cases: MUTATIONS, failure_persistence: None, ..Config::default() };
    // The same mutations in each run: a crash could not be shrunk anyway.
    let random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, random);
    let nn = nn(which);
    for model in models {
        let changes = prop::collection::vec((0..model.len(), any::<u8>()), 1..4);
        let checked = runner.run(&changes, |changes| {
            let mut bytes = model.clone();
            changes.iter().for_each(|&(at, value)| bytes[at] = value);
            let source = wick_nn::SourceBytes::Memory(bytes.into());
            if let Ok(graph) = load_with(&nn, &spec(), source) {
                exercise(&graph);
            }
            Ok(())
        });
        checked.unwrap();
    }
}

/// Run on zeros of the smallest shape; what comes back does not matter.
fn exercise(graph: &GraphHandle) {
    let size = |dim: &Dim| match dim {
        Dim::Fixed(size) => *size,
        Dim::Any => 1,
    };
    let inputs = graph.inputs().iter().map(|spec| {
        let shape: Vec<u64> = spec.shape.iter().map(size).collect();
        let small = shape.iter().try_fold(1_u64, |n, &size| n.checked_mul(size))? < 1 << 20;
        let tensor = Tensor::zeros(spec.datatype, &shape).ok().filter(|_| small)?;
        Some((spec.name.clone(), tensor))
    });
    if let Some(inputs) = inputs.collect() {
        _ = block_on(graph.infer(inputs));
    }
}

fn models_that_cannot_be_served_say_why(which: Which) {
    let error = load(which, onnx::unknown_operator()).err().unwrap();
    assert!(error.to_string().contains("Frobnicate"), "{error}");
    let error = load(which, onnx::without_shape()).err().unwrap();
    assert!(matches!(error, LoadError::Unsupported { .. }), "{error}");
    assert!(error.to_string().contains("shape of input `x`"), "{error}");
}

fn weights_in_another_file_are_taken_from_beside_the_model_or_not_at_all(which: Which) {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    let weights = [0; 16];
    for place in [folder.path(), &inner] {
        std::fs::write(place.join("w.bin"), weights).unwrap();
    }
    let (nn, path) = (nn(which), inner.join("model.onnx"));
    let absolute = folder.path().join("w.bin");
    for file in ["w.bin", "./w.bin", "../w.bin", absolute.to_str().unwrap(), "none.bin", ""] {
        let model = onnx::external_data(file);
        std::fs::write(&path, &model).unwrap();
        let loaded = load_with(&nn, &spec(), source_file(path.clone()));
        if file.ends_with("w.bin") && !file.contains("..") && !file.starts_with('/') {
            loaded.unwrap();
        } else {
            let error = loaded.err().unwrap();
            assert_eq!(error.code(), "weights-elsewhere", "{error}");
            assert!(error.to_string().contains(&format!("`{file}`")), "{error}");
        }
        // As in an image, where the model is a part of a layer.
        let layer = [&[0; 512], model.as_slice()].concat();
        std::fs::write(inner.join("layer.tar"), layer).unwrap();
        let len = model.len() as u64;
        let part = wick_nn::SourceBytes::File {
            path: inner.join("layer.tar"),
            offset: 512,
            len,
            digest: None,
        };
        for source in [part, wick_nn::SourceBytes::Memory(model.into())] {
            let error = load_with(&nn, &spec(), source).err().unwrap();
            assert_eq!(error.code(), "weights-elsewhere", "{error}");
        }
    }
}

fn a_file_that_is_shorter_than_it_was_is_an_error(which: Which) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, onnx::dense(8, 2)).unwrap();
    let source = source_file(path.clone());
    std::fs::write(&path, "short").unwrap();
    let error = load_with(&nn(which), &spec(), source).err().unwrap();
    assert_eq!(error.code(), "graph-unreadable");
    assert!(error.to_string().contains("model.onnx"), "{error}");
}
