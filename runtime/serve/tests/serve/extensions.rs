//! Triton's extensions over a router, in process.

use std::fs;

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};
use wick_serve::{ServeSettings, router};
use wick_testing::onnx;

use crate::support::{Fixture, Reply, call, four, settings, write_package};

const INFER: &str = "/v2/models/m/infer";

/// A request to a server that lets models be loaded by request.
async fn control(fixture: &Fixture, path: &str, body: &str) -> Reply {
    let settings = ServeSettings { model_control: true, ..settings() };
    let router = router(fixture.repository.clone(), &settings);
    call(router, Request::post(path).body(Body::from(body.to_owned())).unwrap()).await
}

async fn index(fixture: &Fixture, body: &str) -> Value {
    let reply = control(fixture, "/v2/repository/index", body).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

#[tokio::test]
async fn statistics_count_what_was_asked() {
    let fixture = Fixture::adding(1.0, "").await;
    for _ in 0..3 {
        assert_eq!(fixture.post(INFER, four([1.0; 4])).await.status, 200);
    }
    assert_eq!(fixture.post(INFER, "{").await.status, 400);
    for path in ["/v2/models/stats", "/v2/models/m/stats", "/v2/models/m/versions/1.0.0/stats"] {
        let all = fixture.get(path).await.json();
        let stats = &all["model_stats"][0];
        assert_eq!((&stats["name"], &stats["version"]), (&json!("m"), &json!("1.0.0")), "{path}");
        assert_eq!(stats["inference_count"], 3);
        // The warm-up ran the graph too.
        assert_eq!(stats["execution_count"], 4);
        let inference = &stats["inference_stats"];
        assert_eq!(inference["success"]["count"], 3);
        assert_eq!(inference["fail"]["count"], 1);
        assert!(inference["success"]["ns"].as_u64() > Some(0), "{inference}");
        assert!(inference["compute_infer"]["ns"].as_u64() > Some(0), "{inference}");
        assert!(stats["last_inference"].as_u64() > Some(1_700_000_000_000), "{stats}");
    }
    assert_eq!(fixture.get("/v2/models/other/stats").await.status, 404);
    assert_eq!(fixture.get("/v2/models/m/versions/9/stats").await.status, 404);
}

#[tokio::test]
async fn a_configuration_has_the_tensors_in_triton_s_words() {
    let fixture = Fixture::adding(1.0, "").await;
    let config = fixture.get("/v2/models/m/config").await.json();
    assert_eq!(config["name"], "m");
    assert_eq!(config["max_batch_size"], 0);
    let input = json!([{"name": "x", "data_type": "TYPE_FP32", "dims": [4]}]);
    assert_eq!(config["input"], input);
    assert_eq!(fixture.get("/v2/models/other/config").await.status, 404);
}

#[tokio::test]
async fn models_are_loaded_and_unloaded_by_request_if_the_host_lets_them() {
    let fixture = Fixture::adding(1.0, "").await;
    let (load, unload) = ("/v2/repository/models/m/load", "/v2/repository/models/m/unload");
    for path in [load, unload] {
        let refused = fixture.post(path, "").await;
        assert_eq!(refused.status, 403, "{path}");
        assert!(refused.text().contains("--model-control"), "{}", refused.text());
    }
    assert_eq!(control(&fixture, unload, "").await.status, 200);
    let entry =
        json!({"name": "m", "version": "1.0.0", "state": "UNAVAILABLE", "reason": "unloaded"});
    assert_eq!(index(&fixture, "").await, json!([entry]));
    assert_eq!(index(&fixture, r#"{"ready": true}"#).await, json!([]));
    assert_eq!(fixture.post(INFER, four([1.0; 4])).await.status, 503);
    assert_eq!(control(&fixture, load, "{}").await.status, 200);
    let entry = json!({"name": "m", "version": "1.0.0", "state": "READY", "reason": ""});
    assert_eq!(index(&fixture, "").await, json!([entry]));
    assert_eq!(fixture.post(INFER, four([1.0; 4])).await.status, 200);
}

#[tokio::test]
async fn a_load_that_fails_leaves_what_was_there() {
    let fixture = Fixture::adding(1.0, "").await;
    let load = "/v2/repository/models/m/load";
    fs::write(fixture.path("m").join("model.onnx"), "no model").unwrap();
    let failed = control(&fixture, load, "").await;
    assert_eq!((failed.status.as_u16(), &failed.json()["code"]), (400, &json!("not-loaded")));
    assert_eq!(fixture.post(INFER, four([1.0; 4])).await.status, 200, "the old one serves");
    let entries = index(&fixture, "").await;
    assert_eq!(entries[0]["state"], "READY");
    assert_ne!(entries[0]["reason"], "", "why the last load failed");
    write_package(&fixture.path("m"), "m", "1.1.0", &onnx::add_scalar(2.0, &[4]), "");
    assert_eq!(control(&fixture, load, "").await.status, 200);
    assert_eq!(index(&fixture, "").await[0]["version"], "1.1.0");
}

#[tokio::test]
async fn a_wrong_request_to_the_repository_changes_nothing() {
    let fixture = Fixture::adding(1.0, "").await;
    let load = "/v2/repository/models/m/load";
    let config = r#"{"parameters": {"config": "{}"}}"#;
    for (path, body, status) in [
        ("/v2/repository/models/other/load", "", 404),
        ("/v2/repository/models/other/unload", "", 404),
        (load, "{", 400),
        (load, config, 400),
        (load, r#"{"parameters": {"file:1/model.onnx": "AAAA"}}"#, 400),
    ] {
        let reply = control(&fixture, path, body).await;
        assert_eq!(reply.status.as_u16(), status, "{path} {body}: {}", reply.text());
    }
    let large = " ".repeat(1 << 20);
    assert_eq!(control(&fixture, load, &large).await.status, 413);
    assert_eq!(fixture.post(INFER, four([1.0; 4])).await.status, 200);
}
