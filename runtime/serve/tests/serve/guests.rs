//! Models with WebAssembly: handlers whose errors become statuses, and guests that
//! answer HTTP themselves. The guests are those of the engine's tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use axum::body::Body;
use http::Request;
use serde_json::json;
use tempfile::TempDir;
use wick_engine::Grants;
use wick_serve::{Repository, RepositoryError, RepositorySettings, Source};
use wick_testing::onnx;

use crate::support::{Fixture, Reply, engine};

/// A compiled guest.
pub fn guest(name: &str) -> Vec<u8> {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"), PathBuf::from);
    let folder = std::env::var_os("WICK_GUESTS")
        .map_or_else(|| target.join("wasm32-wasip2/guest"), PathBuf::from);
    let path = folder.join(name).with_extension("wasm");
    fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; run `cargo xtask setup`", path.display()))
}

/// Packages of a name, a guest and the rest of their manifest.
pub async fn packages(all: &[(&str, &str, &str)]) -> Fixture {
    let dir = TempDir::new().unwrap();
    let settings = RepositorySettings { cpus: 2, drain: Duration::from_secs(5) };
    let repository = Repository::new(engine(), settings).unwrap();
    for (name, component, rest) in all {
        let path = dir.path().join(name);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("handler.wasm"), guest(component)).unwrap();
        fs::write(path.join("g.onnx"), onnx::add_scalar(1.0, &[2])).unwrap();
        let manifest = format!(
            "[package]\nname = \"{name}\"\nversion = \"1.0.0\"\n\n\
             [handler]\ncomponent = \"handler.wasm\"\n\n{rest}\n"
        );
        fs::write(path.join("wick.toml"), manifest).unwrap();
        repository.add(Source { path, grants: Grants::default() }).await.unwrap();
    }
    Fixture { dir, repository }
}

pub const TENSORS: &str = r#"
[[graph]]
name = "g"
path = "g.onnx"

[[input]]
name = "x"
datatype = "FP32"
shape = [-1]

[[output]]
name = "y"
datatype = "FP32"
shape = [-1]

[limits]
timeout = "2s"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_handler_does_becomes_a_status() {
    let fixture = packages(&[("m", "hostile", TENSORS)]).await;
    assert!(fixture.repository.load_all().await.is_empty());
    let ask = async |mode: &str| {
        let body = json!({"parameters": {"mode": mode},
            "inputs": [{"name": "x", "shape": [2], "datatype": "FP32", "data": [1, 2]}]});
        fixture.post("/v2/models/m/infer", body.to_string()).await
    };
    let table = [
        ("good", 200, ""),
        ("bad-input", 400, "bad-input"),
        ("not-found", 404, "not-found"),
        ("too-large", 413, "too-large"),
        ("unavailable", 503, "unavailable"),
        ("deadline", 504, "deadline"),
        ("internal", 500, "internal"),
        ("panic", 500, "guest-failed"),
        ("unreachable", 500, "guest-failed"),
        ("wrong-name", 500, "guest-failed"),
        ("loop", 504, "deadline"),
        ("good", 200, ""),
    ];
    for (mode, status, code) in table {
        let reply = ask(mode).await;
        assert_eq!(reply.status.as_u16(), status, "{mode}: {}", reply.text());
        if status != 200 {
            assert_eq!(reply.json()["code"], code, "{mode}: {}", reply.text());
        }
    }
    let metrics = fixture.get("/metrics").await;
    let started = format!("wick_instance_starts{{model=\"m\",version=\"1.0.0\"}} {}", table.len());
    assert!(metrics.text().contains(&started), "{}", metrics.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clients_deadline_stops_a_guest_that_loops() {
    let fixture = packages(&[("m", "hostile", TENSORS)]).await;
    assert!(fixture.repository.load_all().await.is_empty());
    let body = json!({"parameters": {"mode": "loop", "timeout": 100_000},
        "inputs": [{"name": "x", "shape": [2], "datatype": "FP32", "data": [1, 2]}]});
    let start = Instant::now();
    let reply = fixture.post("/v2/models/m/infer", body.to_string()).await;
    assert_eq!((reply.status.as_u16(), reply.json()["code"].clone()), (504, "deadline".into()));
    assert!(start.elapsed() < Duration::from_millis(1800), "{:?}", start.elapsed());
    assert_eq!(fixture.repository.peek("m", None).unwrap().gate.load(), (0, 0));
}

/// Call as a browser would: with a `Host`.
async fn call(fixture: &Fixture, path: &str, body: impl Into<Body>) -> Reply {
    let request = Request::post(path).header("host", "localhost").body(body.into());
    fixture.call(request.unwrap()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_http_guest_gets_every_path_but_the_servers_own() {
    let limits = "[limits]\nrequest = \"64KiB\"\nconcurrency = 1";
    let fixture = packages(&[("web", "web", limits)]).await;
    assert_eq!(call(&fixture, "/echo", "early").await.status.as_u16(), 503);
    assert!(fixture.repository.load_all().await.is_empty());
    let sent = vec![b'x'; 50_000];
    let reply = call(&fixture, "/echo?q=1", sent.clone()).await;
    assert_eq!((reply.status.as_u16(), reply.body), (200, sent.into()));
    assert_eq!(call(&fixture, "/nothing", "").await.status.as_u16(), 404);
    let failed = call(&fixture, "/panic", "").await;
    assert_eq!(
        (failed.status.as_u16(), failed.json()["code"].clone()),
        (500, "guest-failed".into())
    );
    let large = call(&fixture, "/echo", vec![0; 70_000]).await;
    assert_eq!((large.status.as_u16(), large.json()["code"].clone()), (413, "too-large".into()));

    let own = call(&fixture, "/v2/echo", "").await;
    assert_eq!((own.status.as_u16(), own.json()["code"].clone()), (404, "not-found".into()));
    let tensors = call(&fixture, "/v2/models/web/infer", "{}").await;
    assert_eq!(tensors.json()["code"], "not-a-tensor-model");
    assert_eq!(fixture.get("/v2/models/web").await.json()["platform"], "wasi_http");
    assert_eq!(fixture.repository.peek("web", None).unwrap().gate.load(), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_root_is_the_only_http_guest_s_and_the_page_has_its_own_path() {
    let root = async |fixture: &Fixture| {
        let request = Request::get("/").header("host", "localhost").body(Body::empty());
        fixture.call(request.unwrap()).await.status.as_u16()
    };
    let fixture = packages(&[("web", "web", "")]).await;
    assert_eq!(root(&fixture).await, 503, "it may become the guest's");
    assert!(fixture.repository.load_all().await.is_empty());
    assert_eq!(root(&fixture).await, 404, "the guest has nothing there");
    assert_eq!(fixture.get("/v2/page").await.status.as_u16(), 200);
    let fixture = packages(&[("a", "web", ""), ("b", "web", "")]).await;
    assert!(fixture.repository.load_all().await.is_empty());
    assert_eq!(root(&fixture).await, 307, "nobody's: it leads to the page");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_http_guests_are_called_below_their_names() {
    let fixture = packages(&[("a", "web", ""), ("b", "web", ""), ("m", "hostile", TENSORS)]).await;
    assert!(fixture.repository.load_all().await.is_empty());
    for path in ["/a/echo", "/b/echo?q=1"] {
        let reply = call(&fixture, path, "hello").await;
        assert_eq!((reply.status.as_u16(), reply.text()), (200, "hello"), "{path}");
    }
    for path in ["/echo", "/c/echo", "/m/echo", "/"] {
        let reply = call(&fixture, path, "").await;
        assert_eq!(
            (reply.status.as_u16(), reply.json()["code"].clone()),
            (404, "not-found".into())
        );
    }
    // The guest sees `/`, and has nothing there.
    assert_eq!(call(&fixture, "/a", "").await.body, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_is_refused_with_its_reason() {
    let fixture = packages(&[("tool", "tool", "")]).await;
    let error = fixture.repository.load("tool").await.unwrap_err();
    assert!(matches!(error, RepositoryError::Command { .. }), "{error:?}");
    assert!(error.to_string().contains("it runs once to its end"), "{error}");
    assert!(!fixture.repository.is_ready());
}
