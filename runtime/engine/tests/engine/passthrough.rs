//! Packages without a handler.

use std::time::{Duration, Instant};

use wick_engine::{InferError, InferRequest, ModelKind};
use wick_nn::Tensor;
use wick_package::Datatype;
use wick_testing::onnx;

use crate::support::{Folder, ask, engine, vector};

const PASSTHROUGH: &str = r#"
[package]
name = "add"
version = "1.0.0"

[[graph]]
name = "g"
path = "g.onnx"
"#;

fn folder() -> Folder {
    Folder::new(PASSTHROUGH, &[("g.onnx", &onnx::add_scalar(1.0, &[2]))])
}

fn request(name: &str, outputs: &[&str]) -> InferRequest {
    InferRequest {
        inputs: vec![(name.into(), vector(&[1.0, 2.0]))],
        outputs: outputs.iter().map(|&name| name.into()).collect(),
        ..InferRequest::default()
    }
}

#[tokio::test]
async fn tensors_go_straight_to_the_graph() {
    let engine = engine();
    let model = folder().load(&engine).await.unwrap();
    assert_eq!(model.kind(), ModelKind::Passthrough);
    assert_eq!(model.inputs()[0].name, "x");
    assert_eq!(model.graphs()[0].name, "g");
    model.warm(None).await.unwrap();
    let answer = ask(&model, request("x", &["y"])).await.unwrap();
    assert_eq!(answer.outputs[0].1.as_slice(), Some(&[2.0_f32, 3.0][..]));
    assert_eq!(model.graph_stats()[0].1.inferences, 2);
}

#[tokio::test]
async fn wrong_requests_are_refused_before_the_graph() {
    let engine = engine();
    let model = folder().load(&engine).await.unwrap();
    for (name, outputs) in [("z", &[][..]), ("x", &["z"]), ("x", &["y", "y"])] {
        let refused = ask(&model, request(name, outputs)).await;
        assert!(matches!(refused, Err(InferError::BadInput(_))), "{refused:?}");
    }
    assert_eq!(model.graph_stats()[0].1.executions, 0);
}

#[tokio::test]
async fn a_deadline_that_is_past_is_an_error() {
    let engine = engine();
    let model = folder().load(&engine).await.unwrap();
    let late = model.infer(request("x", &[]), Instant::now()).await;
    assert!(matches!(late, Err(InferError::Deadline(_))), "{late:?}");
}

#[tokio::test]
async fn a_deadline_cuts_a_compute_short() {
    let engine = engine();
    let (width, rows) = (512, 20_000);
    let graph = onnx::dense(width, 4);
    let model = Folder::new(PASSTHROUGH, &[("g.onnx", &graph)]).load(&engine).await.unwrap();
    let request = |rows| InferRequest {
        inputs: vec![("x".into(), Tensor::zeros(Datatype::Fp32, &[rows, width]).unwrap())],
        ..InferRequest::default()
    };
    let started = Instant::now();
    let patience = Duration::from_millis(30);
    // 42 billion operations: far longer than the deadline on any machine.
    let late = model.infer(request(rows), started + patience).await;
    let elapsed = started.elapsed();
    assert!(matches!(late, Err(InferError::Deadline(after)) if after >= patience), "{late:?}");
    ask(&model, request(1)).await.unwrap();
    let uncut = Instant::now();
    ask(&model, request(rows)).await.unwrap();
    assert!(elapsed < uncut.elapsed(), "{elapsed:?} until the deadline was noticed");
}
