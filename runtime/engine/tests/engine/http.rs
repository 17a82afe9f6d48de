//! Guests of `wasi:http`.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use wick_engine::{Engine, EngineSettings, Grants, HttpBody, InferError, Model, ModelKind};
use wick_package::HostPort;

use crate::support::{BARE, Folder, PATIENCE, engine, guest, nn};

async fn web(engine: &Engine) -> Model {
    let folder = Folder::new(BARE, &[("handler.wasm", &guest("web"))]);
    folder.load(engine).await.unwrap()
}

async fn get(
    model: &Model,
    path: &str,
    body: &'static [u8],
    patience: Duration,
) -> Result<http::Response<HttpBody>, InferError> {
    let request = http::Request::builder()
        .uri(path)
        .header("host", "localhost")
        .body(Full::new(Bytes::from_static(body)))
        .unwrap();
    model.http(request, Instant::now() + patience).await
}

async fn text(answer: Result<http::Response<HttpBody>, InferError>) -> String {
    let bytes = answer.unwrap().into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn a_web_guest_streams_its_answer() {
    let engine = engine();
    let model = web(&engine).await;
    assert_eq!(model.kind(), ModelKind::Http);
    let body = &[b'x'; 100_000];
    let answer = text(get(&model, "/echo", body, PATIENCE).await).await;
    assert!(answer.as_bytes() == body, "{} bytes", answer.len());
    assert_eq!(get(&model, "/nothing", b"", PATIENCE).await.unwrap().status(), 404);
}

async fn reused(engine: &Engine, times: u32) -> Model {
    let handler = "component = \"handler.wasm\"\n";
    let manifest = BARE.replace(handler, &format!("{handler}reuse = {times}\n"));
    Folder::new(&manifest, &[("handler.wasm", &guest("web"))]).load(engine).await.unwrap()
}

/// How many requests the instance has had that answers the next one.
async fn count(model: &Model) -> String {
    let answer = text(get(model, "/count", b"", PATIENCE).await).await;
    // The instance rests a moment after its answer is out.
    tokio::time::sleep(Duration::from_millis(50)).await;
    answer
}

#[tokio::test]
async fn each_request_has_a_fresh_instance_unless_the_package_asks_for_less() {
    let engine = engine();
    let fresh = web(&engine).await;
    let reused = reused(&engine, 3).await;
    for want in ["1", "2", "3", "1", "2"] {
        assert_eq!(count(&fresh).await, "1");
        assert_eq!(count(&reused).await, want);
    }
}

#[tokio::test]
async fn an_instance_that_failed_is_never_used_again() {
    let engine = engine();
    let model = reused(&engine, 100).await;
    assert_eq!(count(&model).await, "1");
    assert!(get(&model, "/panic", b"", PATIENCE).await.is_err());
    assert_eq!(count(&model).await, "1");
    // Left by its client, in the middle of its work.
    let patience = Duration::from_millis(500);
    drop(get(&model, "/slow", b"", patience).await.unwrap().into_body());
    assert_eq!(count(&model).await, "1");
}

#[tokio::test]
async fn the_deadline_of_a_used_instance_is_that_of_its_request() {
    let engine = engine();
    let model = reused(&engine, 100).await;
    let patience = Duration::from_millis(200);
    assert_eq!(text(get(&model, "/count", b"", patience).await).await, "1");
    tokio::time::sleep(2 * patience).await;
    // Past the first request's deadline, within its own.
    assert_eq!(count(&model).await, "2");
    let body = get(&model, "/slow", b"", patience).await.unwrap().into_body();
    assert!(body.collect().await.is_err(), "it is stopped at its own deadline");
}

#[tokio::test]
async fn an_instance_that_rests_gives_its_place_to_whoever_waits_for_one() {
    let settings = EngineSettings { max_instances: 1, ..EngineSettings::default() };
    let engine = Engine::new(settings, nn()).unwrap();
    let (resting, other) = (reused(&engine, 100).await, web(&engine).await);
    for _ in 0..3 {
        assert_eq!(count(&resting).await, "1", "it was ended meanwhile");
        assert_eq!(count(&resting).await, "2", "it rests while nobody waits");
        assert_eq!(count(&other).await, "1", "the only place is to be had");
    }
    // Waiting begins while the instance still works, and it rests afterwards.
    let (one, two) =
        tokio::join!(async { text(get(&resting, "/count", b"", PATIENCE).await).await }, async {
            text(get(&other, "/count", b"", PATIENCE).await).await
        },);
    assert_eq!((one.as_str(), two.as_str()), ("1", "1"));
}

#[tokio::test]
async fn only_web_guests_are_used_again() {
    let engine = engine();
    let manifest = BARE.replace("[handler]\n", "[handler]\nreuse = 2\n");
    let folder = Folder::new(&manifest, &[("handler.wasm", &guest("tool"))]);
    let error = folder.load(&engine).await.err().unwrap();
    assert!(error.to_string().contains("wasi:http"), "{error}");
}

#[tokio::test]
async fn a_web_guest_that_fails_before_its_head_is_an_error() {
    let engine = engine();
    let model = web(&engine).await;
    let error = get(&model, "/panic", b"", PATIENCE).await.err().unwrap();
    assert!(error.to_string().contains("no luck on the web"), "{error}");
    let error = get(&model, "/silent", b"", PATIENCE).await.err().unwrap();
    assert!(error.to_string().contains("without an answer"), "{error}");
    let nameless = http::Request::builder().uri("/echo").body(Full::new(Bytes::new())).unwrap();
    let error = model.http(nameless, Instant::now() + PATIENCE).await.err().unwrap();
    assert!(matches!(error, InferError::BadInput(_)), "{error:?}");
    assert_eq!(text(get(&model, "/echo", b"still here", PATIENCE).await).await, "still here");
}

#[tokio::test]
async fn a_body_breaks_off_at_the_deadline() {
    let engine = engine();
    let model = web(&engine).await;
    let patience = Duration::from_millis(500);
    let mut body = get(&model, "/slow", b"", patience).await.unwrap().into_body();
    let first = body.frame().await.unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "wait");
    assert!(body.collect().await.is_err(), "a body without its end is an error");
}

#[tokio::test]
async fn a_client_that_leaves_stops_the_guest() {
    let settings = EngineSettings { max_instances: 1, ..EngineSettings::default() };
    let engine = Engine::new(settings, nn()).unwrap();
    let model = web(&engine).await;
    let mut body = get(&model, "/slow", b"", PATIENCE).await.unwrap().into_body();
    assert!(body.frame().await.is_some());
    drop(body);
    // There is room for one instance only.
    assert_eq!(text(get(&model, "/echo", b"next", PATIENCE).await).await, "next");
}

#[tokio::test]
async fn only_granted_destinations_are_reached() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = socket.read(&mut [0; 4096]).await;
            let _ = socket.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
        }
    });
    let engine = engine();
    let wants = format!("{BARE}\n[wants]\nnetwork = [\"127.0.0.1:{port}\"]\n");
    let folder = Folder::new(&wants, &[("handler.wasm", &guest("web"))]);
    let granted = vec![HostPort { host: "127.0.0.1".into(), port }];
    let load = async |network: &[HostPort]| {
        let grants = Grants { network: network.to_vec(), ..Grants::default() };
        engine.load(folder.open(), grants).await.unwrap()
    };
    let fetch = format!("/fetch?127.0.0.1:{port}");
    let model = load(&granted).await;
    assert_eq!(text(get(&model, &fetch, b"", PATIENCE).await).await, "status 204");
    let other = format!("/fetch?localhost:{port}");
    let denied = text(get(&model, &other, b"", PATIENCE).await).await;
    assert!(denied.contains("HttpRequestDenied"), "{denied}");
    // Wanted and not granted; granted and not wanted.
    let denied = text(get(&load(&[]).await, &fetch, b"", PATIENCE).await).await;
    assert!(denied.contains("HttpRequestDenied"), "{denied}");
    let folder = Folder::new(BARE, &[("handler.wasm", &guest("web"))]);
    let grants = Grants { network: granted.clone(), ..Grants::default() };
    let unwanted = engine.load(folder.open(), grants).await.unwrap();
    let denied = text(get(&unwanted, &fetch, b"", PATIENCE).await).await;
    assert!(denied.contains("HttpRequestDenied"), "{denied}");
    server.abort();
}
