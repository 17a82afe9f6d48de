//! The dynamic batcher through the public seam.

use std::num::NonZeroU32;
use std::thread;
use std::time::{Duration, Instant};

use wick_nn::{GraphHandle, InferError, LoadError, SourceBytes, Tensor};
use wick_package::{Batch, Datatype, GraphSpec};
use wick_testing::onnx;

use crate::common::{
    Which, block_on, floats, infer, load, load_with, nn, on_every_backend, spawn, spec,
};

on_every_backend! {
    requests_join_and_every_one_gets_its_own_rows,
    strings_join_as_well,
    a_bad_request_is_not_the_failure_of_the_others,
    a_member_that_leaves_does_not_stop_its_batch,
    a_batch_that_everybody_left_stops,
    a_graph_with_a_fixed_first_dimension_is_refused,
}

/// Long enough that all requests of a test join.
const DELAY: Duration = Duration::from_millis(60);

fn batched(which: Which, model: Vec<u8>, max: u32) -> Result<GraphHandle, LoadError> {
    let batch = Batch { max: NonZeroU32::new(max).unwrap(), delay: DELAY };
    let spec = GraphSpec { batch: Some(batch), ..spec() };
    load_with(&nn(which), &spec, SourceBytes::Memory(model.into()))
}

/// Run all at once.
fn infer_all(graph: &GraphHandle, inputs: Vec<Tensor>) -> Vec<Result<Tensor, InferError>> {
    let requests: Vec<_> = inputs
        .into_iter()
        .map(|x| {
            let graph = graph.clone();
            spawn(async move {
                let outputs = graph.infer(vec![("x".to_owned(), x)]).await?;
                Ok(outputs.into_iter().next().unwrap().1)
            })
        })
        .collect();
    requests.into_iter().map(|request| block_on(request).unwrap()).collect()
}

fn requests_join_and_every_one_gets_its_own_rows(which: Which) {
    let model = onnx::dense(16, 2);
    let (alone, together) =
        (load(which, model.clone()).unwrap(), batched(which, model, 16).unwrap());
    let rows = [1, 2, 1, 3, 1, 1, 4, 1];
    let inputs: Vec<Tensor> = rows
        .iter()
        .enumerate()
        .map(|(seed, &rows)| {
            let values = (0..rows * 16).map(|i| (i as f32 + seed as f32).sin());
            floats(&[rows, 16], &values.collect::<Vec<_>>())
        })
        .collect();
    let answers = infer_all(&together, inputs.clone());
    for (input, answer) in inputs.into_iter().zip(answers) {
        let (want, answer) = (infer(&alone, input).unwrap(), answer.unwrap());
        assert_eq!(want.shape(), answer.shape());
        let pairs = want.as_slice::<f32>().unwrap().iter().zip(answer.as_slice::<f32>().unwrap());
        // Other row counts may take other kernels, which round differently.
        pairs.for_each(|(a, b)| assert!((a - b).abs() <= 1e-5, "{a} {b}"));
    }
    let stats = together.stats();
    assert_eq!(stats.inferences, 8);
    assert!(stats.executions <= 4, "{stats:?}");
    let counted: u64 = stats.batch_sizes.iter().map(|(rows, runs)| rows * runs).sum();
    assert_eq!(counted, 14, "{stats:?}");
    assert!(stats.batch_sizes.keys().all(|&rows| rows <= 16));
}

fn strings_join_as_well(which: Which) {
    let graph = batched(which, onnx::identity(Datatype::Bytes, &[-1, 2]), 8).unwrap();
    let inputs = [vec!["a", "bb"], vec!["", "dddd", "e", "f"], vec!["€", ""]];
    let inputs: Vec<Tensor> = inputs
        .iter()
        .map(|texts| Tensor::from_strings(&[texts.len() as u64 / 2, 2], texts).unwrap())
        .collect();
    let answers = infer_all(&graph, inputs.clone()).into_iter().map(Result::unwrap);
    assert_eq!(answers.collect::<Vec<_>>(), inputs);
    assert!(graph.stats().executions < 3);
}

fn a_bad_request_is_not_the_failure_of_the_others(which: Which) {
    let graph = batched(which, onnx::gather(4), 8).unwrap();
    let index = |value: i64| Tensor::from_vec(&[1, 1], vec![value]).unwrap();
    let answers = infer_all(&graph, [0, 99, 2, 3].map(index).to_vec());
    let want = [Some(0.0), None, Some(2.0), Some(3.0)];
    for (answer, want) in answers.into_iter().zip(want) {
        assert_eq!(answer.ok(), want.map(|value| floats(&[1, 1], &[value])));
    }
    let stats = graph.stats();
    assert_eq!((stats.inferences, stats.failures), (3, 1));
}

fn a_member_that_leaves_does_not_stop_its_batch(which: Which) {
    let graph = batched(which, onnx::dense(1024, 12), 2048).unwrap();
    let request = |rows: u64| {
        let (graph, x) = (graph.clone(), floats(&[rows, 1024], &vec![0.5; rows as usize * 1024]));
        spawn(async move { graph.infer(vec![("x".to_owned(), x)]).await.map(drop) })
    };
    let (stays, leaves) = (request(1000), request(1000));
    thread::sleep(DELAY + Duration::from_millis(20));
    leaves.abort();
    block_on(stays).unwrap().unwrap();
    assert_eq!(graph.stats().executions, 1, "{:?}", graph.stats());
}

fn a_batch_that_everybody_left_stops(which: Which) {
    let graph = batched(which, onnx::dense(1024, 12), 4096).unwrap();
    let requests = [(); 2].map(|()| {
        let (graph, x) = (graph.clone(), floats(&[2000, 1024], &vec![0.5; 2000 * 1024]));
        spawn(async move { graph.infer(vec![("x".to_owned(), x)]).await.map(drop) })
    });
    thread::sleep(DELAY + Duration::from_millis(20));
    requests.iter().for_each(tokio::task::JoinHandle::abort);
    let start = Instant::now();
    infer(&graph, floats(&[1, 1024], &[0.5; 1024])).unwrap();
    // Slow as a machine may be: the whole is a hundred times one row's work.
    assert!(start.elapsed() < Duration::from_secs(20));
    let stats = graph.stats();
    assert_eq!((stats.inferences, stats.failures), (1, 0));
}

fn a_graph_with_a_fixed_first_dimension_is_refused(which: Which) {
    let error = batched(which, onnx::add_scalar(1.0, &[1, 4]), 8).err().unwrap();
    let text = error.to_string();
    assert!(matches!(error, LoadError::Unsupported { .. }), "{text}");
    for want in ["graph `g`", "`x` is [1, 4]", "remove `batch`"] {
        assert!(text.contains(want), "{text}");
    }
}
