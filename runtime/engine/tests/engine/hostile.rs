//! Guests that misbehave. Each is the error of its request; the next one is answered
//! by the same engine.

use std::time::{Duration, Instant};

use wick_engine::{InferError, Model};

use crate::support::{Folder, ask, engine, good, guest, request};

async fn hostile() -> Model {
    let engine = engine();
    Folder::handler(&guest("hostile")).load(&engine).await.unwrap()
}

/// The mode fails the guest with these words, and a good request still works.
async fn fails(model: &Model, mode: &str, words: &[&str]) {
    let error = ask(model, request(mode)).await.unwrap_err();
    let InferError::Guest { model: name, detail } = &error else { panic!("{mode}: {error:?}") };
    assert_eq!(name, "m");
    for word in words {
        assert!(detail.contains(word), "{mode}: {detail}");
    }
    good(ask(model, request("good")).await);
}

/// The mode is answered with an error that holds these words.
async fn refused(model: &Model, mode: &str, words: &str) {
    let error = ask(model, request(mode)).await.unwrap_err();
    assert!(!matches!(error, InferError::Guest { .. }), "{mode}: {error:?}");
    assert!(error.to_string().contains(words), "{mode}: {error}");
    good(ask(model, request("good")).await);
}

#[tokio::test]
async fn a_guest_that_ends_itself_is_an_error_with_its_reason() {
    let model = hostile().await;
    fails(&model, "panic", &["panicked at", "no luck today"]).await;
    fails(&model, "unreachable", &["unreachable"]).await;
    fails(&model, "exit", &["exited with status 1"]).await;
    // Guests have their stack below their data, so either it or the host's limit is hit.
    fails(&model, "recurse", &[]).await;
    let error = ask(&model, request("recurse")).await.unwrap_err().to_string();
    assert!(error.contains("stack overflow") || error.contains("out of bounds"), "{error}");
}

#[tokio::test]
async fn a_guest_that_allocates_without_end_is_stopped_at_its_limit() {
    let model = hostile().await;
    fails(&model, "allocate", &["out of memory", "67108864"]).await;
}

#[tokio::test]
async fn a_guest_that_never_ends_is_stopped_at_its_deadline() {
    let model = hostile().await;
    for mode in ["loop", "sleep"] {
        let started = Instant::now();
        let error = model.infer(request(mode), started + Duration::from_millis(200)).await;
        assert!(matches!(error, Err(InferError::Deadline(_))), "{mode}: {error:?}");
        assert!(started.elapsed() < Duration::from_secs(10), "{mode}: {:?}", started.elapsed());
        good(ask(&model, request("good")).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn looping_guests_on_all_threads_starve_nobody() {
    let model = hostile().await;
    let mut loops = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let model = model.clone();
        loops.spawn(async move {
            model.infer(request("loop"), Instant::now() + Duration::from_secs(2)).await
        });
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    for _ in 0..5 {
        good(ask(&model, request("good")).await);
    }
    while let Some(ended) = loops.join_next().await {
        assert!(matches!(ended.unwrap(), Err(InferError::Deadline(_))));
    }
}

#[tokio::test]
async fn wrong_tensors_are_the_guests_failure() {
    let model = hostile().await;
    fails(&model, "wrong-name", &["`z`", "`y`"]).await;
    fails(&model, "wrong-datatype", &["INT32", "FP32"]).await;
    fails(&model, "wrong-shape", &["[1, 1]", "[-1]"]).await;
    fails(&model, "no-output", &["did not return the output `y`"]).await;
    fails(&model, "twice", &["`y` twice"]).await;
}

#[tokio::test]
async fn tensors_that_are_none_are_refused() {
    let model = hostile().await;
    refused(&model, "overflowing-shape", "larger than").await;
    refused(&model, "short-nn", "needs 16 bytes, and 3 were given").await;
    refused(&model, "short-nn-compute", "InvalidArgument: input `x`").await;
}

#[tokio::test]
async fn leaks_end_with_their_request() {
    let model = hostile().await;
    fails(&model, "leak-clones", &["table"]).await;
    fails(&model, "leak-nn", &["table"]).await;
    refused(&model, "leak-new", "holds 10000 resources").await;
    // What is dropped in time is no leak.
    good(ask(&model, request("drop-clones")).await);
}

#[tokio::test]
async fn host_tensors_count_against_the_memory_limit() {
    let model = hostile().await;
    refused(&model, "huge-new", "67108864 bytes of tensors in the host").await;
    fails(&model, "huge-nn", &["67108864 bytes of tensors in the host"]).await;
}

#[tokio::test]
async fn graphs_that_are_not_there_or_not_permitted_are_refused() {
    let model = hostile().await;
    refused(&model, "missing-graph", "there is no graph `nope`; package `m` has `g`").await;
    refused(&model, "garbage-graph", "RuntimeError").await;
    refused(&model, "wrong-encoding", "InvalidEncoding").await;
    refused(&model, "gpu-graph", "Security").await;
}

#[tokio::test]
async fn endless_printing_fills_no_log_and_no_memory() {
    let model = hostile().await;
    good(ask(&model, request("print")).await);
    good(ask(&model, request("print-long")).await);
}
