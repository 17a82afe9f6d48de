//! Handlers that behave.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use wick_engine::{EngineSettings, Grants, InferError, InferRequest, ModelKind, Parameter};
use wick_nn::Tensor;
use wick_package::Datatype;

use crate::support::{
    Folder, HANDLER, PATIENCE, alone, ask, engine, good, guest, nn, request, settings, vector,
};

const ECHO: &str = r#"
[package]
name = "echo"
version = "1.0.0"

[handler]
component = "handler.wasm"

[[input]]
name = "a"
datatype = "BYTES"
shape = [-1]

[[input]]
name = "b"
datatype = "BOOL"
shape = [2]

[[output]]
name = "a"
datatype = "BYTES"
shape = [-1]

[[output]]
name = "b"
datatype = "BOOL"
shape = [2]
"#;

fn echo_request() -> InferRequest {
    InferRequest {
        id: Some("7".into()),
        parameters: vec![
            ("p".into(), Parameter::Bool(true)),
            ("q".into(), Parameter::Int(-1)),
            ("r".into(), Parameter::Float(0.5)),
            ("s".into(), Parameter::Text("ü".into())),
        ],
        inputs: vec![
            ("b".into(), Tensor::zeros(Datatype::Bool, &[2]).unwrap()),
            ("a".into(), Tensor::from_strings(&[2], &["x", ""]).unwrap()),
        ],
        outputs: vec![],
    }
}

#[tokio::test]
async fn what_a_handler_passes_on_comes_back_as_it_was() {
    let engine = engine();
    let folder = Folder::new(ECHO, &[("handler.wasm", &guest("echo"))]);
    let model = folder.load(&engine).await.unwrap();
    assert_eq!(model.kind(), ModelKind::Handler);
    model.warm(None).await.unwrap();
    let asked = echo_request();
    let answer = ask(&model, asked.clone()).await.unwrap();
    assert_eq!(answer.parameters, asked.parameters);
    // In the order of the package, not of the request.
    let mut outputs = asked.inputs;
    outputs.reverse();
    assert_eq!(answer.outputs, outputs);
    // The bytes are the same, not a copy.
    assert_eq!(answer.outputs[0].1.data().as_ptr(), outputs[0].1.data().as_ptr());
    let filtered = ask(&model, InferRequest { outputs: vec!["b".into()], ..echo_request() }).await;
    assert_eq!(filtered.unwrap().outputs, [outputs.remove(1)]);
}

#[tokio::test]
async fn a_handler_computes_through_wasi_nn() {
    let engine = engine();
    let model = Folder::handler(&guest("hostile")).load(&engine).await.unwrap();
    let answer = ask(&model, request("compute")).await.unwrap();
    assert_eq!(answer.outputs[0].1.as_slice(), Some(&[2.0_f32, 3.0][..]));
    assert_eq!(model.graph_stats()[0].1.inferences, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_requests_than_instances_wait_their_turn() {
    let settings = EngineSettings { max_instances: 2, ..settings() };
    let engine = wick_engine::Engine::new(settings, nn()).unwrap();
    let model = Folder::handler(&guest("hostile")).load(&engine).await.unwrap();
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let model = model.clone();
        requests.spawn(async move { ask(&model, request("good")).await });
    }
    while let Some(answer) = requests.join_next().await {
        good(answer.unwrap());
    }
}

#[tokio::test]
async fn each_variant_of_a_handlers_error_reaches_the_caller() {
    let engine = engine();
    let model = Folder::handler(&guest("hostile")).load(&engine).await.unwrap();
    for mode in ["bad-input", "not-found", "too-large", "unavailable", "deadline", "internal"] {
        let error = ask(&model, request(mode)).await.unwrap_err();
        assert_eq!(wick_package::Reason::code(&error), mode, "{error}");
    }
    let error = ask(&model, request("too-large")).await.unwrap_err();
    assert_eq!(error.to_string(), "too many pixels");
}

#[tokio::test]
async fn a_dropped_request_stops_its_guest_at_once() {
    let settings = EngineSettings { max_instances: 1, ..settings() };
    let engine = wick_engine::Engine::new(settings, nn()).unwrap();
    let model = Folder::handler(&guest("hostile")).load(&engine).await.unwrap();
    for mode in ["loop", "sleep"] {
        let left = tokio::time::timeout(Duration::from_millis(50), ask(&model, request(mode)));
        assert!(left.await.is_err());
        // There is room for one instance only, so this answers only if the other is gone.
        good(ask(&model, request("good")).await);
    }
}

#[tokio::test]
async fn a_guest_sees_only_what_is_wanted_and_granted() {
    let engine = engine();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("note"), "hello").unwrap();
    let wants = format!(
        "{HANDLER}\n[wants]\nenv = [\"TOKEN\"]\n\
         mounts = [{{ name = \"data\", path = \"/data\", writable = false }}]\n"
    );
    let graph = wick_testing::onnx::add_scalar(1.0, &[2]);
    let files: &[(&str, &[u8])] = &[("handler.wasm", &guest("hostile")), ("g.onnx", &graph)];
    let check = async |manifest: &str, granted: bool, want: [&str; 2]| {
        let mut grants = Grants::default();
        if granted {
            grants.env.insert("TOKEN".into(), "secret".into());
            grants.mounts.insert("data".into(), outside.path().to_owned());
        }
        let folder = Folder::new(manifest, files);
        let model = engine.load(folder.open(), grants).await.unwrap();
        let env = ask(&model, request("env")).await.unwrap_err().to_string();
        assert_eq!(env, want[0]);
        let mut read = request("file");
        read.parameters.push(("path".into(), Parameter::Text("/data/note".into())));
        let file = ask(&model, read).await.unwrap_err().to_string();
        assert!(file.starts_with(want[1]) && file.ends_with("written: false"), "{file}");
        let mut own = request("file");
        own.parameters.push(("path".into(), Parameter::Text("/wick.toml".into())));
        let own = ask(&model, own).await.unwrap_err().to_string();
        assert!(own.contains("[package]") && own.ends_with("written: false"), "{own}");
    };
    check(&wants, true, ["secret", "hello"]).await;
    check(&wants, false, ["none", "error"]).await;
    check(HANDLER, true, ["none", "error"]).await;
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn what_a_guest_prints_is_logged_with_its_model_up_to_a_limit() {
    let engine = engine();
    let model = Folder::handler(&guest("hostile")).load(&engine).await.unwrap();
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().json().with_writer(move || writer.clone()).finish();
    let guard = tracing::subscriber::set_default(subscriber);
    good(ask(&model, request("print")).await);
    drop(guard);
    let text = String::from_utf8(log.0.lock().clone()).unwrap();
    let guests: Vec<_> = text.lines().filter(|line| line.contains("\"guest\"")).collect();
    assert_eq!(guests.len(), 1001, "a thousand lines, and one that says so");
    for part in ["\"model\":\"m\"", "\"stream\":\"stdout\"", "\"message\":\"line 7\""] {
        assert!(guests[7].contains(part), "{}", guests[7]);
    }
}

#[tokio::test]
async fn memory_does_not_grow_with_requests() {
    // Other tests would be counted as well.
    if !alone("handler::memory_does_not_grow_with_requests", "") {
        return;
    }
    let engine = engine();
    let model = Folder::handler(&guest("hostile")).load(&engine).await.unwrap();
    let rss = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let run = async |count: usize| {
        for index in 0..count {
            let mode = ["good", "compute", "panic"][index % 3];
            let _ = model.infer(request(mode), Instant::now() + PATIENCE).await;
        }
    };
    run(500).await;
    let before = rss();
    run(3000).await;
    let grown = rss().saturating_sub(before);
    assert!(grown < 16 << 10, "resident memory grew by {grown} KiB in 3000 requests");
    good(ask(&model, request("good")).await);
}

#[tokio::test]
async fn instantiating_is_measured_apart() {
    let engine = engine();
    let model = Folder::handler(&guest("echo")).load(&engine).await.unwrap();
    let mut times = Vec::new();
    for _ in 0..2000 {
        let start = Instant::now();
        model.instantiate_once().await.unwrap();
        times.push(start.elapsed());
    }
    times.sort();
    println!("median {:?}, 90 % {:?}", times[1000], times[1800]);
    let wrong = ask(
        &model,
        InferRequest { inputs: vec![("x".into(), vector(&[1.0]))], ..InferRequest::default() },
    );
    // `echo` returns `x`, and the package promises `y`.
    assert!(matches!(wrong.await, Err(InferError::Guest { .. })));
}
