//! Optimised graphs are saved, used again, and never used wrongly.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;
use wick_nn::{GraphHandle, Nn, NnSettings, SourceBytes};
use wick_testing::onnx;

use crate::common::{Which, floats, infer, load_with, settings, source_file, spec};

struct Bench {
    folder: TempDir,
    nn: Nn,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cache = Some(folder.path().join("graphs"));
        let nn = Nn::new(NnSettings { cache, ..settings(Which::OnnxRuntime) }).unwrap();
        Self { folder, nn }
    }

    fn write(&self, model: &[u8]) -> PathBuf {
        let path = self.folder.path().join("model.onnx");
        fs::write(&path, model).unwrap();
        // So long that the file's identity can be noted.
        thread::sleep(Duration::from_millis(150));
        path
    }

    fn load(&self, path: &Path) -> GraphHandle {
        load_with(&self.nn, &spec(), source_file(path.to_owned())).unwrap()
    }

    fn entries(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.folder.path().join("graphs")).into_iter().flatten();
        entries
            .map(|entry| entry.unwrap().path())
            .filter(|path| !path.ends_with("digests"))
            .collect()
    }
}

/// Large enough to be saved; other weights give other answers.
fn model(width: u64) -> Vec<u8> {
    onnx::dense(width, 2)
}

fn answer(graph: &GraphHandle, width: u64) -> Vec<f32> {
    let x = floats(&[1, width], &vec![0.25; width as usize]);
    infer(graph, x).unwrap().as_slice().unwrap().to_vec()
}

#[test]
fn a_saved_graph_gives_the_same_answer() {
    let bench = Bench::new();
    let path = bench.write(&model(256));
    let first = answer(&bench.load(&path), 256);
    assert_eq!(bench.entries().len(), 1);
    let saved = answer(&bench.load(&path), 256);
    assert_eq!(first, saved);
    assert_eq!(bench.entries().len(), 1);
    let plain = crate::common::load(Which::OnnxRuntime, model(256)).unwrap();
    let plain = answer(&plain, 256);
    first.iter().zip(&plain).for_each(|(a, b)| assert!((a - b).abs() < 1e-5));
}

#[test]
fn another_model_under_the_same_name_is_not_mistaken_for_the_first() {
    let bench = Bench::new();
    let mut bytes = model(256);
    let path = bench.write(&bytes);
    let first = answer(&bench.load(&path), 256);
    // The same size; some weights in the middle of a matrix differ.
    let middle = bytes.len() / 4;
    bytes[middle..middle + 4096].fill(0);
    bench.write(&bytes);
    let second = answer(&bench.load(&path), 256);
    assert_ne!(first, second);
    assert_eq!(bench.entries().len(), 2);
}

#[test]
fn a_damaged_entry_is_built_again() {
    let bench = Bench::new();
    let path = bench.write(&model(256));
    let want = answer(&bench.load(&path), 256);
    for file in ["model.onnx", "weights.bin", "entry.json"] {
        for content in [&b""[..], b"garbage"] {
            let entry = bench.entries().pop().unwrap();
            let target = entry.join(file);
            assert!(target.exists(), "{}", target.display());
            fs::write(&target, content).unwrap();
            assert_eq!(answer(&bench.load(&path), 256), want, "{file}");
            assert_eq!(bench.entries().len(), 1);
        }
    }
}

#[test]
fn a_graph_that_runs_survives_the_loss_of_its_entry() {
    let bench = Bench::new();
    let path = bench.write(&model(256));
    bench.load(&path);
    let graph = bench.load(&path);
    let want = answer(&graph, 256);
    fs::remove_dir_all(bench.folder.path().join("graphs")).unwrap();
    assert_eq!(answer(&graph, 256), want);
}

#[test]
fn concurrent_starts_share_one_entry() {
    let bench = Bench::new();
    let path = bench.write(&model(256));
    let answers: Vec<_> = thread::scope(|scope| {
        let starts: Vec<_> =
            (0..8).map(|_| scope.spawn(|| answer(&bench.load(&path), 256))).collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    assert_eq!(bench.entries().len(), 1);
}

#[test]
fn a_cache_that_cannot_be_written_is_done_without() {
    let bench = Bench::new();
    let path = bench.write(&model(256));
    // A file where the folder should be: not even root can make a folder there.
    fs::write(bench.folder.path().join("graphs"), "").unwrap();
    assert_eq!(answer(&bench.load(&path), 256).len(), 256);
}

#[test]
fn weights_in_other_files_are_never_saved() {
    let bench = Bench::new();
    let large = "w".repeat(300 << 10);
    // The name of the file makes the model large enough to be saved otherwise.
    let mut bytes = onnx::external_data("weights.bin");
    bytes.extend(onnx::field(6, large.as_bytes()));
    let path = bench.write(&bytes);
    let weights = |values: [f32; 4]| {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        fs::write(bench.folder.path().join("weights.bin"), bytes).unwrap();
    };
    for value in [1.0, 2.0] {
        weights([value; 4]);
        let graph = bench.load(&path);
        let y = infer(&graph, floats(&[4], &[0.0; 4])).unwrap();
        assert_eq!(y, floats(&[4], &[value; 4]));
    }
    assert!(bench.entries().is_empty());
}

#[test]
fn a_model_from_memory_is_never_saved() {
    let bench = Bench::new();
    let source = SourceBytes::Memory(model(256).into());
    load_with(&bench.nn, &spec(), source).unwrap();
    assert!(bench.entries().is_empty());
}

#[test]
fn small_models_are_not_worth_saving() {
    let bench = Bench::new();
    let path = bench.write(&onnx::add_scalar(1.0, &[1]));
    bench.load(&path);
    assert!(bench.entries().is_empty());
}
