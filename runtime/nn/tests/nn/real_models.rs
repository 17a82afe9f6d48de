//! Real models: both backends give the same answers.

use wick_nn::{GraphHandle, Tensor};

use crate::common::{Which, block_on, load_file};

/// Largest difference between the backends' answers.
const TOLERANCE: f32 = 1e-3;

fn answer(graph: &GraphHandle, input: &Tensor) -> Vec<f32> {
    let name = graph.inputs()[0].name.clone();
    let outputs = block_on(graph.infer(vec![(name, input.clone())])).unwrap();
    outputs[0].1.as_slice::<f32>().unwrap().to_vec()
}

fn check(model: &str, inputs: &[Tensor]) {
    let graphs = [Which::Tract, Which::OnnxRuntime].map(|which| load_file(which, model));
    let interface = |graph: &GraphHandle| {
        graph.inputs().iter().map(|spec| (spec.name.clone(), spec.datatype)).collect::<Vec<_>>()
    };
    assert_eq!(interface(&graphs[0]), interface(&graphs[1]));
    for input in inputs {
        let [tract, onnxruntime] = graphs.each_ref().map(|graph| answer(graph, input));
        assert_eq!(tract.len(), onnxruntime.len(), "{model}");
        let largest =
            tract.iter().zip(&onnxruntime).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(largest <= TOLERANCE, "{model} on {input:?}: {largest}");
    }
}

fn picture(shape: [u64; 4]) -> Tensor {
    let count = shape.iter().product::<u64>();
    let values = (0..count).map(|i| ((i * 37 % 255) as f32 / 127.5) - 1.0).collect();
    Tensor::from_vec(&shape, values).unwrap()
}

#[test]
fn magika_answers_alike_on_both_backends() {
    let bytes = |rows: u64, seed: u64| {
        let values = (0..rows * 2048).map(|i| ((i * seed) % 257) as i32).collect();
        Tensor::from_vec(&[rows, 2048], values).unwrap()
    };
    check("magika/model.onnx", &[bytes(1, 1), bytes(1, 31), bytes(3, 7)]);
}

#[test]
fn the_text_orientation_classifier_answers_alike_on_both_backends() {
    check("ppocr/cls.onnx", &[picture([1, 3, 48, 192]), picture([2, 3, 48, 192])]);
}

#[test]
fn the_text_detector_answers_alike_on_both_backends() {
    check("ppocr/det.onnx", &[picture([1, 3, 160, 160]), picture([1, 3, 96, 224])]);
}

#[test]
fn the_text_recogniser_answers_alike_on_both_backends() {
    check("ppocr/rec.onnx", &[picture([1, 3, 48, 160]), picture([1, 3, 48, 320])]);
}
