//! Tokens and origins of web pages, as a client sees them.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use axum::body::Body;
use http::{Method, Request, StatusCode, header};
use sha2::{Digest as _, Sha256};
use wick_serve::{Auth, ServeSettings, router};
use wick_testing::onnx;

use crate::connections::Running;
use crate::support::{Fixture, Reply, call, four, settings};

/// Two models, and a file of tokens: name, models, and whether it controls.
async fn fixture(tokens: &[(&str, &str, bool)]) -> Fixture {
    let add = onnx::add_scalar(1.0, &[4]);
    let fixture = Fixture::new(&[("cat", &add, ""), ("dog", &add, "")]).await;
    write(&fixture, tokens);
    fixture
}

fn write(fixture: &Fixture, tokens: &[(&str, &str, bool)]) {
    let mut file = String::new();
    for (name, models, control) in tokens {
        let hash: String = Sha256::digest(name).iter().map(|byte| format!("{byte:02x}")).collect();
        let entry = format!("name = \"{name}\"\nsha256 = \"{hash}\"\nmodels = {models}");
        writeln!(file, "[[token]]\n{entry}\ncontrol = {control}").unwrap();
    }
    fs::write(fixture.path("tokens.toml"), file).unwrap();
}

fn guarded(fixture: &Fixture, open_metrics: bool) -> ServeSettings {
    let auth = Auth::open(fixture.path("tokens.toml"), open_metrics).unwrap();
    ServeSettings { auth: Some(auth), model_control: true, ..settings() }
}

async fn ask(
    fixture: &Fixture,
    settings: &ServeSettings,
    (method, path): (Method, &str),
    token: Option<&str>,
) -> Reply {
    let body = if path.ends_with("/infer") { four([1.0; 4]) } else { String::new() };
    let mut request = Request::builder().method(method).uri(path);
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Body::from(body)).unwrap();
    call(router(fixture.repository.clone(), settings), request).await
}

#[tokio::test]
async fn a_token_opens_its_models_and_no_others() {
    let tokens = [("one", "[\"cat\"]", false), ("all", "[\"*\"]", true)];
    let fixture = fixture(&tokens).await;
    let settings = guarded(&fixture, false);
    let (get, post) = (Method::GET, Method::POST);
    // What is asked; the status without a token, with that of one model, and with that of all.
    let table = [
        (&get, "/v2/health/live", [200, 200, 200]),
        (&get, "/v2/health/ready", [200, 200, 200]),
        (&get, "/v2", [401, 200, 200]),
        (&get, "/metrics", [401, 200, 200]),
        (&get, "/v2/models", [401, 200, 200]),
        (&get, "/v2/models/cat", [401, 200, 200]),
        (&get, "/v2/models/dog", [401, 403, 200]),
        (&get, "/v2/models/bird", [401, 403, 404]),
        (&get, "/v2/models/dog/ready", [401, 403, 200]),
        (&get, "/v2/models/dog/stats", [401, 403, 200]),
        (&get, "/v2/models/dog/config", [401, 403, 200]),
        (&get, "/v2/models/%64og", [401, 403, 200]),
        (&post, "/v2/models/cat/infer", [401, 200, 200]),
        (&post, "/v2/models/dog/infer", [401, 403, 200]),
        (&post, "/v2/models/dog/versions/1.0.0/infer", [401, 403, 200]),
        (&post, "/v2/models/cat/infer/", [401, 404, 404]),
        (&post, "/v2/repository/index", [401, 200, 200]),
        (&post, "/v2/repository/models/cat/load", [401, 403, 200]),
        (&post, "/v2/repository/models/dog/unload", [401, 403, 200]),
        (&get, "/v2/health/live/", [401, 404, 404]),
        (&get, "/nothing", [401, 404, 404]),
    ];
    for (method, path, want) in table {
        for (token, want) in [None, Some("one"), Some("all")].into_iter().zip(want) {
            let reply = ask(&fixture, &settings, (method.clone(), path), token).await;
            assert_eq!(reply.status, want, "{path} {token:?}: {}", reply.text());
            let challenge = reply.header("www-authenticate");
            assert_eq!(challenge.is_some_and(|text| text.starts_with("Bearer")), want == 401);
        }
    }
    let wrong = ask(&fixture, &settings, (get, "/v2/models/cat"), Some("two")).await;
    assert_eq!(
        (wrong.status, &wrong.json()["code"]),
        (StatusCode::UNAUTHORIZED, &"unknown-token".into())
    );
}

#[tokio::test]
async fn lists_have_only_models_that_may_be_called() {
    let fixture = fixture(&[("one", "[\"cat\"]", false)]).await;
    let settings = guarded(&fixture, true);
    let asked = [
        (Method::GET, "/v2/models"),
        (Method::GET, "/v2/models/stats"),
        (Method::POST, "/v2/repository/index"),
    ];
    for (method, path) in asked {
        let reply = ask(&fixture, &settings, (method, path), Some("one")).await;
        assert!(reply.text().contains("cat") && !reply.text().contains("dog"), "{}", reply.text());
    }
    let metrics = ask(&fixture, &settings, (Method::GET, "/metrics"), None).await;
    assert_eq!(metrics.status, StatusCode::OK);
}

#[tokio::test]
async fn a_grpc_client_without_a_token_is_unauthenticated() {
    let fixture = fixture(&[("one", "[\"cat\"]", false)]).await;
    let router = router(fixture.repository.clone(), &guarded(&fixture, false));
    let request = Request::post("/inference.GRPCInferenceService/ModelInfer")
        .header(header::CONTENT_TYPE, "application/grpc+proto")
        .body(Body::empty());
    let reply = call(router, request.unwrap()).await;
    assert_eq!((reply.status, reply.header("grpc-status")), (StatusCode::OK, Some("16")));
    assert_eq!(reply.header("content-type"), Some("application/grpc"));
    assert!(reply.header("grpc-message").unwrap().contains("token") && reply.body.is_empty());
}

#[tokio::test]
async fn tokens_are_read_again_when_their_file_changes() {
    let fixture = fixture(&[("old", "[\"*\"]", false)]).await;
    let server = Running::start(&fixture, guarded(&fixture, false)).await;
    let ask = |token: &'static str| {
        let text = format!(
            "GET /v2/models HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\
             Authorization: Bearer {token}\r\n\r\n"
        );
        let server = &server;
        async move { server.exchange(&text).await.starts_with("HTTP/1.1 200 OK") }
    };
    assert!(ask("old").await && !ask("new").await);
    write(&fixture, &[("new", "[\"*\"]", false)]);
    let taken = async {
        while !ask("new").await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), taken).await.expect("not taken");
    assert!(!ask("old").await);
    // A file with a mistake lets in whom the last good one did.
    fs::write(fixture.path("tokens.toml"), "[[token]]\n").unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(ask("new").await && !ask("old").await);
    server.stop().await;
}

fn preflight(origin: &str) -> Request<Body> {
    Request::options("/v2/models/cat/infer")
        .header(header::ORIGIN, origin)
        .header(header::ACCESS_CONTROL_REQUEST_METHOD, "POST")
        .header(header::ACCESS_CONTROL_REQUEST_HEADERS, "authorization,content-type")
        .body(Body::empty())
        .unwrap()
}

#[tokio::test]
async fn web_pages_are_let_in_only_from_origins_that_are_named() {
    let fixture = fixture(&[("one", "[\"cat\"]", false)]).await;
    let [here, there] = ["https://here.example", "https://there.example"];
    let allowed = |reply: &Reply| reply.header("access-control-allow-origin").map(str::to_owned);
    // Origins that are named, one that asks, and what it is told.
    let table: [(&[&str], &str, Option<&str>); 4] = [
        (&[], here, None),
        (&[here], here, Some(here)),
        (&[here], there, None),
        (&["*"], there, Some("*")),
    ];
    for (origins, asks, want) in table {
        let cors_origins = origins.iter().map(|origin| origin.parse().unwrap()).collect();
        let settings = ServeSettings { cors_origins, ..guarded(&fixture, false) };
        let router = router(fixture.repository.clone(), &settings);
        let reply = call(router.clone(), preflight(asks)).await;
        assert_eq!(allowed(&reply).as_deref(), want, "{origins:?} {asks}");
        assert_eq!(reply.status.is_success(), !origins.is_empty(), "{}", reply.status);
        if want.is_some() {
            let headers = reply.header("access-control-allow-headers");
            assert_eq!(headers, Some("authorization,content-type"));
        }
        // Also a page that is refused may read why.
        let request = Request::get("/v2/models").header(header::ORIGIN, asks);
        let reply = call(router, request.body(Body::empty()).unwrap()).await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
        assert_eq!(allowed(&reply).as_deref(), want, "{origins:?} {asks}");
        let sent = reply.headers.keys().any(|name| name.as_str().starts_with("access-control"));
        assert!(sent || origins.is_empty() || want.is_none());
        assert!(!sent || !origins.is_empty());
    }
}
