//! Core modules with `wasi_ephemeral_nn`, written by hand so that every pointer can
//! be wrong.

use std::fmt::Write as _;
use std::time::Instant;

use wick_engine::{InferError, ModelKind};
use wick_testing::onnx;

use crate::support::{Folder, PATIENCE, engine};

const MANIFEST: &str = r#"
[package]
name = "m"
version = "1.0.0"

[handler]
component = "handler.wasm"

[[graph]]
name = "g"
path = "g.onnx"

[limits]
memory = "8MiB"
"#;

/// Functions of the ABI, and memory with: at 0 the name `g`; at 16 a tensor record
/// (dimensions at 64, FP32, data at 72); at 64 the shape [2]; at 72 the values 1 and 2.
const HEAD: &str = r#"
(module
  (import "wasi_ephemeral_nn" "load" (func $load (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_ephemeral_nn" "load_by_name" (func $named (param i32 i32 i32) (result i32)))
  (import "wasi_ephemeral_nn" "init_execution_context" (func $init (param i32 i32) (result i32)))
  (import "wasi_ephemeral_nn" "set_input" (func $set (param i32 i32 i32) (result i32)))
  (import "wasi_ephemeral_nn" "compute" (func $compute (param i32) (result i32)))
  (import "wasi_ephemeral_nn" "get_output"
    (func $get (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "g")
  (data (i32.const 16) "\40\00\00\00\01\00\00\00\01\00\00\00\48\00\00\00\08\00\00\00")
  (data (i32.const 64) "\02\00\00\00")
  (data (i32.const 72) "\00\00\80\3f\00\00\00\40")
  (func $check (param i32) (if (local.get 0) (then (call $exit (local.get 0)))))
"#;

/// Everything before the output: graph and context 0, input set, computed.
const COMPUTED: &str = r#"
  (call $check (call $named (i32.const 0) (i32.const 1) (i32.const 256)))
  (call $check (call $init (i32.load (i32.const 256)) (i32.const 260)))
  (call $check (call $set (i32.const 0) (i32.const 0) (i32.const 16)))
  (call $check (call $compute (i32.const 0)))
"#;

/// Run a module whose `_start` is `body`.
async fn run(body: &str, graph: &[u8]) -> Result<i32, InferError> {
    let text = format!("{HEAD} (func (export \"_start\") {body}))");
    let module = wat::parse_str(&text).unwrap();
    let engine = engine();
    let folder = Folder::new(MANIFEST, &[("handler.wasm", &module), ("g.onnx", graph)]);
    let model = folder.load(&engine).await.unwrap();
    assert_eq!(model.kind(), ModelKind::Command);
    model.run(&[], Instant::now() + PATIENCE).await
}

/// `call` ends with this number of the ABI.
async fn answers(call: &str, errno: i32) {
    let graph = onnx::add_scalar(1.0, &[2]);
    let status = run(&format!("(call $exit {call})"), &graph).await.unwrap();
    assert_eq!(status, errno, "{call}");
}

/// `call` passes a pointer outside the memory, which ends the guest.
async fn traps(call: &str) {
    let graph = onnx::add_scalar(1.0, &[2]);
    let error = run(&format!("(drop {call})"), &graph).await.unwrap_err();
    assert!(error.to_string().contains("outside its memory"), "{call}: {error}");
}

#[tokio::test]
async fn a_core_module_computes() {
    let body = format!(
        "{COMPUTED}
        (call $check (call $get (i32.const 0) (i32.const 0) (i32.const 512) (i32.const 8) (i32.const 264)))
        (if (i32.ne (i32.load (i32.const 264)) (i32.const 8)) (then (call $exit (i32.const 100))))
        (if (f32.ne (f32.load (i32.const 512)) (f32.const 2)) (then (call $exit (i32.const 101))))
        (if (f32.ne (f32.load (i32.const 516)) (f32.const 3)) (then (call $exit (i32.const 102))))"
    );
    assert_eq!(run(&body, &onnx::add_scalar(1.0, &[2])).await.unwrap(), 0);
}

#[tokio::test]
async fn a_core_module_loads_a_graph_that_it_brings() {
    let graph = onnx::add_scalar(5.0, &[2]);
    let escaped = graph.iter().fold(String::new(), |mut text, byte| {
        write!(text, "\\{byte:02x}").unwrap();
        text
    });
    // In two parts: the first 10 bytes, and the rest.
    let parts = [1024, 10, 1034, u32::try_from(graph.len() - 10).unwrap()];
    let parts =
        parts.map(u32::to_le_bytes).concat().iter().fold(String::new(), |mut text, byte| {
            write!(text, "\\{byte:02x}").unwrap();
            text
        });
    let body = format!(
        "(call $check (call $load (i32.const 128) (i32.const 2) (i32.const 1) (i32.const 0) (i32.const 256)))
        (call $check (call $init (i32.load (i32.const 256)) (i32.const 260)))
        (call $check (call $set (i32.const 0) (i32.const 0) (i32.const 16)))
        (call $check (call $compute (i32.const 0)))
        (call $check (call $get (i32.const 0) (i32.const 0) (i32.const 512) (i32.const 8) (i32.const 264)))
        (if (f32.ne (f32.load (i32.const 512)) (f32.const 6)) (then (call $exit (i32.const 101)))))
        (data (i32.const 1024) \"{escaped}\")
        (data (i32.const 128) \"{parts}\")
        (func"
    );
    assert_eq!(run(&body, &onnx::add_scalar(1.0, &[2])).await.unwrap(), 0);
}

#[tokio::test]
async fn misuse_is_answered_with_its_number() {
    let invalid = 1;
    let (encoding, unsupported, too_large, not_found) = (2, 6, 7, 8);
    answers("(call $named (i32.const 1) (i32.const 1) (i32.const 256))", not_found).await;
    answers("(call $init (i32.const 9) (i32.const 256))", invalid).await;
    answers("(call $compute (i32.const 9))", invalid).await;
    answers("(call $set (i32.const 9) (i32.const 0) (i32.const 16))", invalid).await;
    let load = |parts, kind, target| {
        format!(
            "(call $load (i32.const 64) (i32.const {parts}) (i32.const {kind}) \
             (i32.const {target}) (i32.const 256))"
        )
    };
    answers(&load(1, 3, 0), encoding).await;
    answers(&load(1, 1, 7), invalid).await;
    answers(&load(0, 1, 0), invalid).await;
    answers(&load(-1, 1, 0), invalid).await;
    answers(&load(1, 1, 1), unsupported).await;
    let small = "(block (result i32) COMPUTED
        (call $get (i32.const 0) (i32.const 0) (i32.const 512) (i32.const 7) (i32.const 264)))";
    answers(&small.replace("COMPUTED", COMPUTED), too_large).await;
    let index = "(block (result i32) COMPUTED
        (call $get (i32.const 0) (i32.const 5) (i32.const 512) (i32.const 8) (i32.const 264)))";
    answers(&index.replace("COMPUTED", COMPUTED), invalid).await;
}

#[tokio::test]
async fn pointers_outside_the_memory_end_the_guest() {
    let far = "(i32.const -8)";
    traps(&format!("(call $named {far} (i32.const 9) (i32.const 256))")).await;
    traps(&format!("(call $named (i32.const 0) (i32.const 1) {far})")).await;
    traps(&format!("(call $set (i32.const 0) (i32.const 0) {far})")).await;
    traps(&format!("(call $load {far} (i32.const 1) (i32.const 1) (i32.const 0) (i32.const 256))"))
        .await;
    let get = format!(
        "(block (result i32) {COMPUTED}
        (call $get (i32.const 0) (i32.const 0) {far} (i32.const 8) (i32.const 264)))"
    );
    traps(&get).await;
}

#[tokio::test]
async fn handles_that_cant_be_dropped_are_bounded() {
    let leak = "(loop $again
        (call $check (call $named (i32.const 0) (i32.const 1) (i32.const 256)))
        (br $again))";
    assert_eq!(run(leak, &onnx::add_scalar(1.0, &[2])).await.unwrap(), 7);
}
