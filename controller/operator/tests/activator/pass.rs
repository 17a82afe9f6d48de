//! What passes through: connections that are kept, requests in a row, bodies as they come, and
//! shares of traffic.

use bytes::Bytes;
use http::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::stage::{H1, H2, Stage, at, body, port, request, route, share, whole};
use crate::upstream::Upstream;

#[tokio::test]
async fn a_connection_is_kept_and_bodies_come_back_whole() {
    let (pod, port) = (Upstream::start(), port());
    let _stage = Stage::new(&[("m", whole(port, &[(pod.addr, true)]))]).await;
    let mut client = H1::connect(at(port)).await;
    for size in [0, 1, 70_000, 5_000_000] {
        let sent = "x".repeat(size);
        let answer = client.send(request(Method::POST, "/echo", sent.clone())).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert!(!answer.headers().contains_key("connection"));
        assert!(body(answer).await == sent, "{size} bytes");
    }
    assert_eq!(body(client.get("/host").await.unwrap()).await, "model");
}

#[tokio::test]
async fn requests_in_a_row_are_answered_in_their_order() {
    let (pod, port) = (Upstream::start(), port());
    let _stage = Stage::new(&[("m", whole(port, &[(pod.addr, true)]))]).await;
    let mut stream = TcpStream::connect(at(port)).await.unwrap();
    let one = |text: &str| {
        format!("POST /echo HTTP/1.1\r\nHost: m\r\nContent-Length: {}\r\n\r\n{text}", text.len())
    };
    let chunked = "POST /echo HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\
                   Connection: close\r\n\r\n5\r\nthird\r\n0\r\n\r\n";
    let all = [one("first"), one("second"), chunked.to_owned()].concat();
    stream.write_all(all.as_bytes()).await.unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).await.unwrap();
    let place = |text| answers.find(text).unwrap_or_else(|| panic!("no {text} in {answers}"));
    assert!(place("first") < place("second") && place("second") < place("third"));
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 3);
    assert_eq!(pod.hits(), 3);
}

#[tokio::test]
async fn one_http2_connection_carries_many_requests_at_once() {
    let (pod, port) = (Upstream::start(), port());
    let _stage = Stage::new(&[("m", whole(port, &[(pod.addr, true)]))]).await;
    let client = H2::connect(at(port)).await;
    let asked = (0..200).map(|n| {
        let client = &client;
        async move {
            let sent = format!("{n}").repeat(1000);
            let asked = request(Method::POST, "/echo", Bytes::from(sent.clone()));
            assert_eq!(body(client.send(asked).await.unwrap()).await, sent);
        }
    });
    futures::future::join_all(asked).await;
    assert_eq!(pod.hits(), 200);
}

#[tokio::test]
async fn traffic_is_divided_by_weight_among_revisions_that_have_pods() {
    let (old, new, port) = (Upstream::start(), Upstream::start(), port());
    let split = |ready| {
        let shares =
            [share("m-1", 80, &[(old.addr, true)]), share("m-2", 20, &[(new.addr, ready)])];
        route(port, shares.to_vec())
    };
    let stage = Stage::new(&[("m", split(false))]).await;
    let mut client = H1::connect(at(port)).await;
    for _ in 0..50 {
        assert_eq!(client.get("/fault").await.unwrap().status(), 500);
    }
    assert_eq!((old.hits(), new.hits()), (50, 0), "a pod that is not ready gets nothing");
    stage.set(&[("m", split(true))]);
    // Seen by the next request or one of the next few.
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    for _ in 0..1000 {
        assert_eq!(client.get("/echo").await.unwrap().status(), 200);
    }
    assert!((120..280).contains(&new.hits()), "{} of 1000 at a share of 20 %", new.hits());
    let labels = |revision, code| {
        format!("namespace=\"ns\",model=\"m\",revision=\"{revision}\",code=\"{code}\"")
    };
    stage.until(&format!("wick_activator_answers_total{{{}}} 50", labels("m-1", 500))).await;
    let line = format!("wick_activator_answers_total{{{}}} {}", labels("m-2", 200), new.hits());
    stage.until(&line).await;
}

#[tokio::test]
async fn small_bodies_that_come_in_pieces_come_back_whole_and_half_ones_do_not() {
    let (pod, port) = (Upstream::start(), port());
    let stage = Stage::new(&[("m", whole(port, &[(pod.addr, true)]))]).await;
    let head = "POST /echo HTTP/1.1\r\nHost: m\r\nConnection: close\r\nContent-Length: 9\r\n\r\n";
    let mut stream = TcpStream::connect(at(port)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for piece in [head, "abc", "def", "ghi"] {
        stream.write_all(piece.as_bytes()).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("abcdefghi"), "{answer}");
    let mut half = TcpStream::connect(at(port)).await.unwrap();
    half.write_all(format!("{head}abc").as_bytes()).await.unwrap();
    stage.until("wick_activator_sent{namespace=\"ns\",model=\"m\"} 1").await;
    drop(half);
    stage.until("wick_activator_sent{namespace=\"ns\",model=\"m\"} 0").await;
    assert_eq!(pod.hits(), 1, "no pod begins what can't be finished");
    let mut client = H1::connect(at(port)).await;
    let head = client.send(request(Method::HEAD, "/host", "")).await.unwrap();
    assert_eq!(
        (head.status().as_u16(), &head.headers()["content-length"]),
        (200, &"5".parse().unwrap())
    );
    assert_eq!(body(client.get("/host").await.unwrap()).await, "model");
}
