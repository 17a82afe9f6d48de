//! Graphs that give their memory back and are loaded again.

use std::fs;

use tempfile::TempDir;
use wick_nn::{GraphHandle, InferError, LoadError, SourceBytes, Tensor};
use wick_testing::onnx;

use crate::common::{self, Which, block_on, floats, infer, on_every_backend};

on_every_backend! {
    a_graph_rests_and_is_woken_with_its_tensors_and_counts,
    a_graph_whose_file_has_changed_is_not_woken_as_another,
    a_graph_without_a_file_stays,
}

fn input() -> Tensor {
    floats(&[4], &[0.0; 4])
}

/// A graph that adds `value`, from a file in a folder.
fn adding(which: Which, folder: &TempDir, value: f32) -> GraphHandle {
    let path = folder.path().join("model.onnx");
    fs::write(&path, onnx::add_scalar(value, &[4])).unwrap();
    common::load_with(&common::nn(which), &common::spec(), common::source_file(path)).unwrap()
}

fn a_graph_rests_and_is_woken_with_its_tensors_and_counts(which: Which) {
    let folder = TempDir::new().unwrap();
    let graph = adding(which, &folder, 1.0);
    let (inputs, device) = (graph.inputs().to_vec(), graph.device().clone());
    let want = infer(&graph, input()).unwrap();
    for round in 1..3 {
        graph.rest();
        assert!(matches!(infer(&graph, input()), Err(InferError::Unloaded(name)) if name == "g"));
        assert_eq!((graph.inputs(), graph.device()), (&inputs[..], &device));
        block_on(graph.wake()).unwrap();
        assert_eq!(infer(&graph, input()).unwrap().data(), want.data());
        assert_eq!(graph.stats().executions, round + 1, "its counts go on");
    }
}

fn a_graph_whose_file_has_changed_is_not_woken_as_another(which: Which) {
    let folder = TempDir::new().unwrap();
    let graph = adding(which, &folder, 1.0);
    graph.rest();
    assert!(graph.is_unchanged());
    fs::write(folder.path().join("model.onnx"), onnx::add_scalar(2.0, &[4, 1])).unwrap();
    assert!(!graph.is_unchanged());
    assert!(matches!(block_on(graph.wake()), Err(LoadError::Changed { .. })));
}

fn a_graph_without_a_file_stays(which: Which) {
    let bytes = SourceBytes::Memory(onnx::add_scalar(1.0, &[4]).into());
    let graph = common::load_with(&common::nn(which), &common::spec(), bytes).unwrap();
    graph.rest();
    infer(&graph, input()).unwrap();
}
