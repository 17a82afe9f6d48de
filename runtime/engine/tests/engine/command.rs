//! Command components.

use std::time::{Duration, Instant};

use wick_engine::{InferError, Model, ModelKind};

use crate::support::{BARE, Folder, PATIENCE, ask, engine, guest, request};

async fn tool() -> Model {
    let engine = engine();
    Folder::new(BARE, &[("handler.wasm", &guest("tool"))]).load(&engine).await.unwrap()
}

fn args(args: &[&str]) -> Vec<String> {
    args.iter().map(|&arg| arg.into()).collect()
}

#[tokio::test]
async fn a_command_gets_its_arguments_and_says_how_it_ended() {
    let model = tool().await;
    assert_eq!(model.kind(), ModelKind::Command);
    let deadline = Instant::now() + PATIENCE;
    let output = model.run_captured(&args(&["7", "b"]), deadline).await.unwrap();
    // wasi 0.2 knows success and failure only.
    assert_eq!(output.status, 1);
    assert_eq!(output.stdout, b"m 7 b\n");
    assert_eq!(output.stderr, b"2 arguments\n");
    assert_eq!(model.run(&[], deadline).await.unwrap(), 0);
}

#[tokio::test]
async fn a_command_that_fails_is_an_error_with_its_reason() {
    let model = tool().await;
    let error = model.run(&args(&["panic"]), Instant::now() + PATIENCE).await.unwrap_err();
    assert!(error.to_string().contains("no luck as a tool"), "{error}");
    let soon = Instant::now() + Duration::from_millis(100);
    let error = model.run(&args(&["loop"]), soon).await.unwrap_err();
    assert!(matches!(error, InferError::Deadline(_)), "{error:?}");
}

#[tokio::test]
async fn each_kind_is_called_in_its_own_way() {
    let model = tool().await;
    let error = ask(&model, Default::default()).await.unwrap_err();
    assert!(error.to_string().contains("as a command"), "{error}");
    let engine = engine();
    let handler = Folder::handler(&guest("hostile")).load(&engine).await.unwrap();
    let error = handler.run(&[], Instant::now() + PATIENCE).await.unwrap_err();
    assert!(error.to_string().contains("with tensors"), "{error}");
    assert!(ask(&handler, request("good")).await.is_ok());
}
