//! Clients that are slow, or never read, and clients that want all connections.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use wick_package::Datatype;
use wick_serve::ServeSettings;

use crate::connections::{Running, answer, post};
use crate::support::{Fixture, four, settings};

/// More than all buffers between server and client take.
const LARGE: usize = 32 << 20;

const LIVE: &str = "GET /v2/health/live HTTP/1.1\r\nHost: h\r\n\r\n";

/// A place for one connection, so that another one shows that the first has ended.
fn one_at_a_time() -> ServeSettings {
    let write_timeout = Duration::from_millis(300);
    ServeSettings { max_connections: 1, write_timeout, ..settings() }
}

/// The next client is answered, as soon as there is a place for it.
async fn next_is_answered(server: &Running) {
    let mut next = server.connect().await;
    next.write_all(LIVE.as_bytes()).await.unwrap();
    let text = tokio::time::timeout(Duration::from_secs(10), answer(&mut next)).await;
    assert!(text.expect("the server is held up").starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn headers_byte_by_byte_end_with_their_time() {
    let fixture = Fixture::adding(1.0, "").await;
    let server = Running::start(&fixture, one_at_a_time()).await;
    let mut slow = server.connect().await;
    let trickle = async {
        let header = format!("GET /v2 HTTP/1.1\r\nHost: h\r\nX: {}", "a".repeat(1000));
        for byte in header.as_bytes() {
            if slow.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the server takes headers for as long as they come");
    };
    tokio::join!(trickle, next_is_answered(&server));
    server.stop().await;
}

#[tokio::test]
async fn a_body_byte_by_byte_ends_with_its_time() {
    let fixture = Fixture::adding(1.0, "").await;
    let server = Running::start(&fixture, one_at_a_time()).await;
    let (mut read, mut write) = server.connect().await.into_split();
    let head = "POST /v2/models/m/infer HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n";
    write.write_all(head.as_bytes()).await.unwrap();
    let trickle = async {
        while write.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let refused = async {
        let mut text = String::new();
        // It may end by a reset, after the answer.
        let _ = read.read_to_string(&mut text).await;
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 408 "), "{text}");
    };
    tokio::join!(trickle, refused, next_is_answered(&server));
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_never_reads_is_disconnected() {
    let fixture = Fixture::identity(Datatype::Uint8, &[LARGE as i64]).await;
    let server = Running::start(&fixture, one_at_a_time()).await;
    let mut deaf = server.connect().await;
    let head = format!(
        "POST /v2/models/m/infer HTTP/1.1\r\nHost: h\r\nContent-Length: {LARGE}\r\n\
         Inference-Header-Content-Length: 0\r\n\r\n"
    );
    deaf.write_all(head.as_bytes()).await.unwrap();
    deaf.write_all(&vec![7; LARGE]).await.unwrap();
    next_is_answered(&server).await;
    // It would have been answered, had it read.
    let mut begin = [0; 15];
    deaf.read_exact(&mut begin).await.unwrap();
    assert_eq!(&begin, b"HTTP/1.1 200 OK");
    server.stop().await;
}

#[tokio::test]
async fn an_http2_client_that_takes_no_answer_is_disconnected() {
    let fixture = Fixture::adding(1.0, "").await;
    let server = Running::start(&fixture, one_at_a_time()).await;
    let io = TokioIo::new(server.connect().await);
    let mut http = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    // The socket stays free; only this answer is held back.
    let handshake = http.initial_stream_window_size(0).handshake(io).await;
    let (mut client, connection) = handshake.unwrap();
    let connection = tokio::spawn(connection);
    let uri = format!("http://{}/v2/models/m/infer", server.addr);
    let request = http::Request::post(uri).body(Full::<Bytes>::from(four([1.0; 4]))).unwrap();
    let answer = client.send_request(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    next_is_answered(&server).await;
    let ended = tokio::time::timeout(Duration::from_secs(10), connection).await;
    ended.expect("the connection stays").unwrap().ok();
    server.stop().await;
}

#[tokio::test]
async fn one_address_gets_only_its_share_of_the_connections() {
    let fixture = Fixture::adding(1.0, "").await;
    let settings = ServeSettings { max_peer_connections: 2, ..settings() };
    let server = Running::start(&fixture, settings).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = server.connect().await;
        stream.write_all(post(&four([1.0; 4]), "").as_bytes()).await.unwrap();
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200 OK"));
        open.push(stream);
    }
    let mut third = server.connect().await;
    // It may be closed before it has written.
    let _ = third.write_all(LIVE.as_bytes()).await;
    let mut text = Vec::new();
    let _ = third.read_to_end(&mut text).await;
    assert!(text.is_empty(), "a third connection is answered");

    let other = TcpSocket::new_v4().unwrap();
    other.bind(([127, 0, 0, 2], 0).into()).unwrap();
    let mut other = other.connect(server.addr).await.unwrap();
    other.write_all(LIVE.as_bytes()).await.unwrap();
    assert!(answer(&mut other).await.starts_with("HTTP/1.1 200 OK"));

    // A place that is given up can be had again.
    drop(open);
    let again = async {
        loop {
            let mut stream = server.connect().await;
            let mut first = [0; 1];
            let asked = stream.write_all(LIVE.as_bytes()).await.is_ok();
            if asked && stream.read(&mut first).await.is_ok_and(|read| read == 1) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), again).await.unwrap();
    server.stop().await;
}
