//! What every backend must do.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use half::{bf16, f16};
use wick_nn::{InferError, LoadError, Tensor};
use wick_package::{Datatype, Dim};
use wick_testing::onnx;

use crate::common::{Which, block_on, floats, infer, load, on_every_backend, spawn};

on_every_backend! {
    every_datatype_comes_through_unchanged,
    shapes_may_be_dynamic_empty_and_scalar,
    inputs_are_found_by_name,
    what_is_handed_through_outlives_the_request,
    wrong_inputs_are_refused_by_name,
    an_error_while_running_leaves_the_graph_usable,
    many_threads_run_one_graph_at_once,
    dropping_a_request_stops_it_soon,
    a_request_that_waits_can_leave,
    requests_are_counted,
    a_quick_graph_answers_where_it_is_called,
    a_slow_graph_never_keeps_its_caller,
}

fn sample(datatype: Datatype) -> Tensor {
    let shape = [2, 2];
    match datatype {
        Datatype::Bool => Tensor::new(datatype, &shape, Bytes::from_static(&[1, 0, 0, 1])),
        Datatype::Bytes => Tensor::from_strings(&shape, &["", "wick", "zwei\0null", "€"]),
        Datatype::Uint8 => Tensor::from_vec(&shape, vec![0_u8, 1, 2, u8::MAX]),
        Datatype::Uint16 => Tensor::from_vec(&shape, vec![0_u16, 1, 2, u16::MAX]),
        Datatype::Uint32 => Tensor::from_vec(&shape, vec![0_u32, 1, 2, u32::MAX]),
        Datatype::Uint64 => Tensor::from_vec(&shape, vec![0_u64, 1, 2, u64::MAX]),
        Datatype::Int8 => Tensor::from_vec(&shape, vec![i8::MIN, -1, 0, i8::MAX]),
        Datatype::Int16 => Tensor::from_vec(&shape, vec![i16::MIN, -1, 0, i16::MAX]),
        Datatype::Int32 => Tensor::from_vec(&shape, vec![i32::MIN, -1, 0, i32::MAX]),
        Datatype::Int64 => Tensor::from_vec(&shape, vec![i64::MIN, -1, 0, i64::MAX]),
        Datatype::Fp16 => {
            Tensor::from_vec(&shape, [0.5, -1.0, 65504.0, 0.0].map(f16::from_f32).to_vec())
        }
        Datatype::Bf16 => {
            Tensor::from_vec(&shape, [0.5, -1.0, 1e30, 0.0].map(bf16::from_f32).to_vec())
        }
        Datatype::Fp32 => Tensor::from_vec(&shape, vec![f32::MIN, -0.0, 1e-40, f32::INFINITY]),
        Datatype::Fp64 => Tensor::from_vec(&shape, vec![f64::MIN, -0.0, 1e-310, f64::INFINITY]),
    }
    .unwrap()
}

fn every_datatype_comes_through_unchanged(which: Which) {
    for datatype in Datatype::ALL {
        let loaded = load(which, onnx::identity(datatype, &[-1, 2]));
        if which == Which::Tract && datatype == Datatype::Bf16 {
            let error = loaded.err().expect("tract has no BF16");
            assert!(matches!(error, LoadError::Unsupported { .. }), "{error}");
            continue;
        }
        let graph = loaded.unwrap();
        assert_eq!(graph.inputs()[0].datatype, datatype);
        assert_eq!(graph.inputs()[0].shape, [Dim::Any, Dim::Fixed(2)]);
        assert_eq!(infer(&graph, sample(datatype)).unwrap(), sample(datatype), "{datatype}");
    }
}

fn shapes_may_be_dynamic_empty_and_scalar(which: Which) {
    let graph = load(which, onnx::add_scalar(1.0, &[-1, -1])).unwrap();
    for shape in [[1, 1], [3, 2], [0, 4], [1, 5]] {
        let count = shape.iter().product::<u64>() as usize;
        let answer = infer(&graph, floats(&shape, &vec![1.0; count])).unwrap();
        assert_eq!(answer, floats(&shape, &vec![2.0; count]));
    }
    let graph = load(which, onnx::add_scalar(1.0, &[])).unwrap();
    assert_eq!(infer(&graph, floats(&[], &[1.0])).unwrap(), floats(&[], &[2.0]));
}

fn inputs_are_found_by_name(which: Which) {
    let graph = load(which, onnx::subtract(&[2])).unwrap();
    let inputs = [("b", floats(&[2], &[1.0, 2.0])), ("a", floats(&[2], &[10.0, 20.0]))];
    let inputs = inputs.map(|(name, tensor)| (name.to_owned(), tensor)).to_vec();
    let outputs = block_on(graph.infer(inputs)).unwrap();
    assert_eq!(outputs, [("y".to_owned(), floats(&[2], &[9.0, 18.0]))]);
}

fn what_is_handed_through_outlives_the_request(which: Which) {
    let graph = load(which, onnx::aliases(&[4])).unwrap();
    let x = floats(&[4], &[1.0, 2.0, 3.0, 4.0]);
    let outputs = block_on(graph.infer(vec![("x".to_owned(), x)])).unwrap();
    drop(graph);
    // Whatever memory was freed is soon somebody else's.
    let noise: Vec<Vec<u8>> = (0..1000).map(|i| vec![i as u8; 16]).collect();
    let want = [
        ("minus", floats(&[4], &[-1.0, -2.0, -3.0, -4.0])),
        ("x", floats(&[4], &[1.0, 2.0, 3.0, 4.0])),
        ("z", floats(&[3], &[1.0, 2.0, 3.0])),
    ];
    assert_eq!(outputs, want.map(|(name, tensor)| (name.to_owned(), tensor)));
    drop(noise);
}

fn wrong_inputs_are_refused_by_name(which: Which) {
    let graph = load(which, onnx::add_scalar(1.0, &[-1, 2])).unwrap();
    let cases = [
        ("x", floats(&[1, 3], &[0.0; 3]), "`x` has shape [1, 3], and the model takes [-1, 2]"),
        ("x", floats(&[2], &[0.0; 2]), "`x` has shape [2], and the model takes [-1, 2]"),
        ("x", Tensor::from_vec(&[1, 2], vec![0_i32; 2]).unwrap(), "takes FP32"),
        ("q", floats(&[1, 2], &[0.0; 2]), "no input `q`; the model takes `x`"),
    ];
    for (name, tensor, want) in cases {
        let error = block_on(graph.infer(vec![(name.to_owned(), tensor)])).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, InferError::BadInput(_)), "{text}");
        assert!(text.contains("graph `g`") && text.contains(want), "{text}");
    }
    assert!(matches!(block_on(graph.infer(Vec::new())), Err(InferError::BadInput(_))));
}

fn an_error_while_running_leaves_the_graph_usable(which: Which) {
    let graph = load(which, onnx::gather(4)).unwrap();
    let index = |value: i64| Tensor::from_vec(&[1, 1], vec![value]).unwrap();
    for _ in 0..3 {
        let error = infer(&graph, index(99)).unwrap_err();
        assert!(matches!(error, InferError::Backend { .. }), "{error}");
        assert_eq!(infer(&graph, index(3)).unwrap(), floats(&[1, 1], &[3.0]));
    }
}

fn many_threads_run_one_graph_at_once(which: Which) {
    let graph = Arc::new(load(which, onnx::dense(32, 3)).unwrap());
    let input = |seed: usize| floats(&[1, 32], &[seed as f32; 32]);
    let want: Vec<Tensor> = (0..16).map(|seed| infer(&graph, input(seed)).unwrap()).collect();
    let threads = (0..16).map(|seed| {
        let (graph, want) = (Arc::clone(&graph), want[seed].clone());
        thread::spawn(move || {
            for _ in 0..50 {
                assert_eq!(infer(&graph, input(seed)).unwrap(), want);
            }
        })
    });
    for thread in threads.collect::<Vec<_>>() {
        thread.join().unwrap();
    }
}

/// Takes seconds, in many nodes.
fn slow_graph(which: Which) -> (wick_nn::GraphHandle, Tensor) {
    let rows = 4096;
    let graph = load(which, onnx::dense(1024, 12)).unwrap();
    (graph, floats(&[rows, 1024], &vec![0.5; rows as usize * 1024]))
}

fn dropping_a_request_stops_it_soon(which: Which) {
    let (graph, x) = slow_graph(which);
    // One thread of the pool is left for what comes after.
    let slow = graph.clone();
    let request = spawn(async move { slow.infer(vec![("x".to_owned(), x)]).await.map(drop) });
    thread::sleep(Duration::from_millis(100));
    assert!(!request.is_finished(), "the test needs a request that takes longer");
    let start = Instant::now();
    request.abort();
    while graph.stats().executions == 0 {
        thread::sleep(Duration::from_millis(1));
        assert!(start.elapsed() < Duration::from_secs(20), "it ran on");
    }
    let one = infer(&graph, floats(&[1, 1024], &[0.5; 1024])).unwrap();
    assert_eq!(one.shape(), [1, 1024]);
    // The whole would take longer; a node is finished, twelve are not.
    let stats = graph.stats();
    assert_eq!((stats.inferences, stats.failures), (1, 0));
}

fn a_request_that_waits_can_leave(which: Which) {
    let (graph, x) = slow_graph(which);
    let requests: Vec<_> = (0..6)
        .map(|_| {
            let (graph, x) = (graph.clone(), x.clone());
            spawn(async move { graph.infer(vec![("x".to_owned(), x)]).await.map(drop) })
        })
        .collect();
    thread::sleep(Duration::from_millis(50));
    requests.iter().for_each(tokio::task::JoinHandle::abort);
    infer(&graph, floats(&[1, 1024], &[0.5; 1024])).unwrap();
    // Two ran at once, and the others never began.
    assert!(graph.stats().executions <= 3, "{:?}", graph.stats());
}

fn requests_are_counted(which: Which) {
    let graph = load(which, onnx::gather(4)).unwrap();
    let index = |value: i64| Tensor::from_vec(&[1, 1], vec![value]).unwrap();
    infer(&graph, index(1)).unwrap();
    infer(&graph, index(2)).unwrap();
    infer(&graph, index(77)).unwrap_err();
    let stats = graph.stats();
    assert_eq!((stats.inferences, stats.failures, stats.executions), (2, 1, 3));
    assert!(stats.compute_ns > 0 && stats.queue_ns > 0);
}

/// Whether one request runs where it is called: then it never waits for a thread.
fn runs_in_place(graph: &wick_nn::GraphHandle, x: &Tensor) -> bool {
    let before = graph.stats().queue_ns;
    infer(graph, x.clone()).unwrap();
    graph.stats().queue_ns == before
}

fn a_quick_graph_answers_where_it_is_called(which: Which) {
    let graph = load(which, onnx::add_scalar(1.0, &[-1])).unwrap();
    let small = floats(&[1], &[1.0]);
    assert!(!runs_in_place(&graph, &small), "nothing is known of it yet");
    // A run that the machine interrupts sets it back.
    assert!((0..10_000).any(|_| runs_in_place(&graph, &small)));
    let large = floats(&[1000], &[1.0; 1000]);
    assert!(!runs_in_place(&graph, &large), "nothing is known of inputs so large");
}

fn a_slow_graph_never_keeps_its_caller(which: Which) {
    let graph = load(which, onnx::dense(512, 8)).unwrap();
    let x = floats(&[64, 512], &[0.5; 64 * 512]);
    assert!((0..40).all(|_| !runs_in_place(&graph, &x)));
}
