//! Real connections: slow, broken and leaving clients, h2c, keep-alive, shutdown.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wick_serve::{BindError, Drained, Priority, ServeSettings, Server};

use crate::support::{Fixture, four, settings};

/// A server on a port of its own.
pub struct Running {
    pub addr: SocketAddr,
    pub stop: CancellationToken,
    pub done: JoinHandle<Drained>,
}

impl Running {
    pub async fn start(fixture: &Fixture, settings: ServeSettings) -> Self {
        let bound = Server::bind(settings).await.unwrap();
        let (addr, stop) = (bound.local_addr(), CancellationToken::new());
        let done = tokio::spawn(bound.serve(fixture.repository.clone(), stop.clone()));
        Self { addr, stop, done }
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }

    /// Send text on a connection of its own and read until the server closes it.
    pub async fn exchange(&self, text: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer));
        read.await.expect("the server keeps the connection open").unwrap();
        String::from_utf8(answer).unwrap()
    }

    pub async fn stop(self) -> Drained {
        self.stop.cancel();
        self.done.await.unwrap()
    }
}

pub fn post(body: &str, headers: &str) -> String {
    format!(
        "POST /v2/models/m/infer HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
}

/// Read one answer with a Content-Length from a connection that stays open.
pub async fn answer(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    loop {
        let mut piece = [0; 4096];
        let read = stream.read(&mut piece).await.unwrap();
        assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&piece[..read]);
        let seen = String::from_utf8_lossy(&text).to_lowercase();
        let Some((head, body)) = seen.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if body.len() >= length.unwrap().parse().unwrap() {
            return String::from_utf8(text).unwrap();
        }
    }
}

pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10), "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn one_connection_carries_many_requests() {
    let fixture = Fixture::adding(1.0, "").await;
    let server = Running::start(&fixture, settings()).await;
    let mut stream = server.connect().await;
    for _ in 0..3 {
        stream.write_all(post(&four([1.0; 4]), "").as_bytes()).await.unwrap();
        let text = answer(&mut stream).await;
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.contains("[2.0,2.0,2.0,2.0]"));
    }
    // Two requests at once are answered in order.
    let both = [post(&four([1.0; 4]), ""), post("{}", "Connection: close\r\n")].concat();
    stream.write_all(both.as_bytes()).await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    let (ok, bad) = (rest.find("200 OK").unwrap(), rest.find("400 Bad Request").unwrap());
    assert!(ok < bad, "{rest}");
    assert_eq!(server.stop().await, Drained { cut_off: 0 });
}

#[tokio::test]
async fn http2_without_tls_is_served_on_the_same_port() {
    let fixture = Fixture::adding(1.0, "").await;
    let server = Running::start(&fixture, settings()).await;
    let io = TokioIo::new(server.connect().await);
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await;
    let (mut client, connection) = handshake.unwrap();
    tokio::spawn(connection);
    let uri = format!("http://{}/v2/models/m/infer", server.addr);
    let request = |body: String| Request::post(&uri).body(Full::new(Bytes::from(body))).unwrap();
    let first = client.send_request(request(four([1.0; 4])));
    let second = client.send_request(request("{}".to_owned()));
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    assert_eq!((first.status(), second.status()), (StatusCode::OK, StatusCode::BAD_REQUEST));
    let body = first.into_body().collect().await.unwrap().to_bytes();
    assert!(body.ends_with(b"[2.0,2.0,2.0,2.0]}]}"), "{body:?}");
    drop(client);
    assert_eq!(server.stop().await.cut_off, 0);
}

#[tokio::test]
async fn a_slow_body_is_408_and_a_silent_client_is_disconnected() {
    let fixture = Fixture::adding(1.0, "").await;
    let server = Running::start(&fixture, settings()).await;
    let slow = "POST /v2/models/m/infer HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n{";
    let text = server.exchange(slow).await;
    assert!(text.starts_with("HTTP/1.1 408 ") && text.contains("slow-body"), "{text}");
    for beginning in ["", "G", "PRI * HTTP/2.0\r\n", "GET /v2 HTTP/1.1\r\nHost: "] {
        let start = Instant::now();
        let text = server.exchange(beginning).await;
        assert!(!text.contains("200 OK"), "{text}");
        assert!(start.elapsed() < Duration::from_secs(5), "{beginning:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn chunked_bodies_are_read_and_broken_ones_refused() {
    let fixture = Fixture::adding(1.0, "request = \"1KiB\"").await;
    let server = Running::start(&fixture, settings()).await;
    let chunked = |chunks: &str| {
        format!(
            "POST /v2/models/m/infer HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\
             Transfer-Encoding: chunked\r\n\r\n{chunks}"
        )
    };
    let body = four([1.0; 4]);
    let (a, b) = body.split_at(10);
    let good = format!("{:x}\r\n{a}\r\n{:x}\r\n{b}\r\n0\r\n\r\n", a.len(), b.len());
    let text = server.exchange(&chunked(&good)).await;
    assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
    let text = server.exchange(&chunked("zz\r\nabc\r\n0\r\n\r\n")).await;
    assert!(text.starts_with("HTTP/1.1 400 ") && text.contains("broken-body"), "{text}");
    let long = format!("{:x}\r\n{}\r\n0\r\n\r\n", 2000, " ".repeat(2000));
    let text = server.exchange(&chunked(&long)).await;
    assert!(text.starts_with("HTTP/1.1 413 ") && text.contains("too-large"), "{text}");

    // A client that goes away in the middle of its body.
    let mut stream = server.connect().await;
    stream.write_all(post(&body, "").split_at(120).0.as_bytes()).await.unwrap();
    drop(stream);
    let text = server.exchange(&post(&body, "Connection: close\r\n")).await;
    assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
    server.stop().await;
}

#[tokio::test]
async fn headers_without_end_are_refused() {
    let fixture = Fixture::adding(1.0, "").await;
    let server = Running::start(&fixture, ServeSettings { max_headers: 8192, ..settings() }).await;
    let long = format!("GET /v2 HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "a".repeat(20_000));
    let text = server.exchange(&long).await;
    assert!(text.starts_with("HTTP/1.1 431 "), "{text}");
    let text = server.exchange("GARBAGE\r\n\r\n").await;
    assert!(text.starts_with("HTTP/1.1 400 "), "{text}");
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_writes_all_of_a_refused_body_still_reads_the_answer() {
    let fixture = Fixture::adding(1.0, "request = \"1KiB\"").await;
    let server = Running::start(&fixture, settings()).await;
    for path in ["m", "unknown"] {
        let body = " ".repeat(3 << 20);
        let request = post(&body, "").replace("/m/", &format!("/{path}/"));
        let mut stream = server.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let text = answer(&mut stream).await;
        let status = if path == "m" { "HTTP/1.1 413 " } else { "HTTP/1.1 404 " };
        assert!(text.starts_with(status), "{text}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_gives_up_its_place() {
    let fixture = Fixture::adding(1.0, "concurrency = 1\nqueue = 2").await;
    let server = Running::start(&fixture, settings()).await;
    let live = fixture.repository.peek("m", None).unwrap();
    let permit =
        live.gate.enter(Instant::now() + Duration::from_secs(60), Priority::DEFAULT).await.unwrap();
    let mut stream = server.connect().await;
    stream.write_all(post(&four([0.0; 4]), "").as_bytes()).await.unwrap();
    until("the request waits", || live.gate.load() == (1, 1)).await;
    drop(stream);
    until("its place is free", || live.gate.load() == (1, 0)).await;
    drop(permit);
    let metrics = fixture.get("/metrics").await;
    let canceled = r#"nv_inference_request_failure{model="m",reason="CANCELED",version="1.0.0"} 1"#;
    assert!(metrics.text().contains(canceled), "{}", metrics.text());
    server.stop().await;
}

#[tokio::test]
async fn a_shutdown_finishes_what_was_begun_and_closes_idle_connections() {
    let fixture = Fixture::adding(1.0, "concurrency = 1").await;
    let server = Running::start(&fixture, settings()).await;
    let addr = server.addr;
    let live = fixture.repository.peek("m", None).unwrap();
    let permit =
        live.gate.enter(Instant::now() + Duration::from_secs(60), Priority::DEFAULT).await.unwrap();
    let mut idle = server.connect().await;
    idle.write_all(b"GET /v2 HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    answer(&mut idle).await;
    let mut busy = server.connect().await;
    busy.write_all(post(&four([1.0; 4]), "").as_bytes()).await.unwrap();
    until("the request waits", || live.gate.load() == (1, 1)).await;

    server.stop.cancel();
    assert_eq!(idle.read(&mut [0; 8]).await.unwrap(), 0, "the idle connection stays open");
    assert!(fixture.repository.is_draining() && !fixture.repository.is_ready());
    assert!(TcpStream::connect(addr).await.is_err(), "new connections are accepted");
    assert!(!server.done.is_finished());
    drop(permit);
    let text = answer(&mut busy).await;
    assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
    assert_eq!(server.done.await.unwrap(), Drained { cut_off: 0 });
}

#[tokio::test]
async fn a_server_that_lingers_answers_as_before_and_says_that_it_is_not_ready() {
    let fixture = Fixture::adding(1.0, "").await;
    let linger = Duration::from_secs(2);
    let server = Running::start(&fixture, ServeSettings { linger, ..settings() }).await;
    let (addr, begun) = (server.addr, Instant::now());
    let mut kept = server.connect().await;
    kept.write_all(b"GET /v2 HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    assert!(!answer(&mut kept).await.contains("connection: close"));

    server.stop.cancel();
    until("it is leaving", || fixture.repository.is_leaving()).await;
    let ready = server.exchange("GET /v2/health/ready HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
    // To its end, so each connection is closed behind its answer.
    let new = server.exchange(&post(&four([1.0; 4]), "")).await;
    assert!(new.starts_with("HTTP/1.1 200 OK") && new.contains("connection: close"), "{new}");
    kept.write_all(post(&four([1.0; 4]), "").as_bytes()).await.unwrap();
    assert!(answer(&mut kept).await.starts_with("HTTP/1.1 200 OK"));
    assert_eq!(kept.read(&mut [0; 8]).await.unwrap(), 0, "the old connection stays open");

    assert_eq!(server.done.await.unwrap(), Drained { cut_off: 0 });
    assert!(begun.elapsed() >= linger && TcpStream::connect(addr).await.is_err());
}

#[tokio::test]
async fn a_server_without_its_model_does_not_linger() {
    let fixture = Fixture::adding(1.0, "").await;
    fixture.repository.unload("m").await.unwrap();
    let (linger, drain) = (Duration::from_secs(3600), Duration::from_secs(7200));
    let server = Running::start(&fixture, ServeSettings { linger, drain, ..settings() }).await;
    let stopped = tokio::time::timeout(Duration::from_secs(60), server.stop()).await;
    assert_eq!(stopped.expect("it lingers"), Drained { cut_off: 0 });
}

#[tokio::test]
async fn a_request_that_outlasts_the_drain_time_is_cut_off() {
    let fixture = Fixture::adding(1.0, "concurrency = 1").await;
    let drain = Duration::from_millis(50);
    let server = Running::start(&fixture, ServeSettings { drain, ..settings() }).await;
    let live = fixture.repository.peek("m", None).unwrap();
    let _permit =
        live.gate.enter(Instant::now() + Duration::from_secs(60), Priority::DEFAULT).await.unwrap();
    let mut busy = server.connect().await;
    busy.write_all(post(&four([1.0; 4]), "").as_bytes()).await.unwrap();
    until("the request waits", || live.gate.load() == (1, 1)).await;
    assert_eq!(server.stop().await, Drained { cut_off: 1 });
    assert_eq!(live.gate.load(), (1, 0), "the request goes on");
}

#[tokio::test]
async fn connections_past_the_limit_wait_for_a_place() {
    let fixture = Fixture::adding(1.0, "").await;
    let server = Running::start(&fixture, ServeSettings { max_connections: 1, ..settings() }).await;
    let mut first = server.connect().await;
    first.write_all(b"GET /v2 HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    answer(&mut first).await;
    let mut second = server.connect().await;
    second.write_all(b"GET /v2 HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(100), answer(&mut second)).await;
    assert!(early.is_err(), "the second connection got a place");
    drop(first);
    assert!(answer(&mut second).await.starts_with("HTTP/1.1 200 OK"));
    server.stop().await;
}

#[tokio::test]
async fn a_port_in_use_is_named_with_what_to_do() {
    let first = Server::bind(settings()).await.unwrap();
    let addr = first.local_addr();
    let second = Server::bind(ServeSettings { addr, ..settings() }).await;
    let error = second.unwrap_err();
    assert!(matches!(error, BindError::InUse { .. }), "{error:?}");
    assert!(error.to_string().contains(&format!("{addr} is in use")), "{error}");
}
