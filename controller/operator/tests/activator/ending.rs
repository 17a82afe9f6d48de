//! Ends: of the activator, of a Model, of its port, of clients' connections.

use std::time::{Duration, Instant};

use http::Method;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use wick_operator::activator::table::Route;

use crate::stage::{H1, H2, LIMIT, Stage, at, body, port, request, whole};
use crate::upstream::Upstream;

#[tokio::test]
async fn a_drain_refuses_those_that_wait_and_finishes_what_was_sent() {
    let (pod, warm, cold) = (Upstream::start(), port(), port());
    let routes = [("m", whole(warm, &[(pod.addr, true)])), ("n", whole(cold, &[]))];
    let stage = Stage::new(&routes).await;
    let get = |port, path| tokio::spawn(async move { H1::connect(at(port)).await.get(path).await });
    let (sent, held) = (get(warm, "/slow"), get(cold, "/echo"));
    let mut idle = TcpStream::connect(at(warm)).await.unwrap();
    stage.until("wick_activator_sent{namespace=\"ns\",model=\"m\"} 1").await;
    stage.until("wick_activator_held{namespace=\"ns\",model=\"n\"} 1").await;
    let start = Instant::now();
    let Stage { activator, table: _table } = stage;
    let drained = tokio::spawn(activator.drain());
    let refused = held.await.unwrap().unwrap();
    assert!(start.elapsed() < Duration::from_millis(250), "{:?}", start.elapsed());
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["retry-after"]),
        (503, &"1".parse().unwrap())
    );
    assert_eq!(refused.headers()["connection"], "close");
    let sent = sent.await.unwrap().unwrap();
    assert_eq!((sent.status().as_u16(), body(sent).await.as_str()), (200, "slow"));
    let drained = tokio::time::timeout(LIMIT, drained).await.unwrap().unwrap();
    assert_eq!(drained.cut_off, 0);
    assert!(start.elapsed() < Duration::from_secs(4), "nothing waited for the deadline");
    assert!(TcpStream::connect(at(warm)).await.is_err(), "its port is closed");
    // A client that has said nothing is closed too.
    let mut nothing = [0; 1];
    assert!(!matches!(idle.read(&mut nothing).await, Ok(1)));
}

#[tokio::test]
async fn who_takes_too_long_is_cut_off() {
    let port = port();
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stage = Stage::new(&[("m", whole(port, &[(silent.local_addr().unwrap(), true)]))]).await;
    let asked = tokio::spawn(async move { H1::connect(at(port)).await.get("/echo").await });
    stage.until("wick_activator_sent{namespace=\"ns\",model=\"m\"} 1").await;
    let start = Instant::now();
    assert_eq!(stage.activator.drain().await.cut_off, 1);
    assert!(start.elapsed() >= Duration::from_secs(5));
    assert!(tokio::time::timeout(LIMIT, asked).await.unwrap().unwrap().is_err(), "it is reset");
}

#[tokio::test]
async fn ports_come_and_go_with_the_table() {
    let (one, two) = (Upstream::start(), Upstream::start());
    let (a, b) = (port(), port());
    let of = |port, pod: &Upstream| whole(port, &[(pod.addr, true)]);
    let stage = Stage::new(&[("m", of(a, &one)), ("n", of(b, &two))]).await;
    let ask =
        |port| async move { H1::connect(at(port)).await.get("/echo").await.unwrap().status() };
    assert_eq!((ask(a).await, ask(b).await), (http::StatusCode::OK, http::StatusCode::OK));
    assert_eq!((one.hits(), two.hits()), (1, 1));
    // Each has now the port that was the other's.
    stage.set(&[("m", of(b, &one)), ("n", of(a, &two))]);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(ask(a).await, 200);
    assert_eq!((one.hits(), two.hits()), (1, 2));
    // One that waits learns that its Model is gone.
    stage.set(&[("m", whole(b, &[])), ("n", of(a, &two))]);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let held = tokio::spawn(async move { H1::connect(at(b)).await.get("/echo").await });
    stage.until("wick_activator_held{namespace=\"ns\",model=\"m\"} 1").await;
    stage.set(&[("n", of(a, &two))]);
    assert_eq!(held.await.unwrap().unwrap().status(), 503);
    assert!(TcpStream::connect(at(b)).await.is_err());
    assert_eq!(ask(a).await, 200);
}

#[tokio::test]
async fn a_port_that_is_taken_is_had_as_soon_as_it_is_free() {
    let (pod, port) = (Upstream::start(), port());
    let taken = std::net::TcpListener::bind(at(port)).unwrap();
    let _stage = Stage::new(&[("m", whole(port, &[(pod.addr, true)]))]).await;
    drop(taken);
    let start = Instant::now();
    while TcpStream::connect(at(port)).await.is_err() {
        assert!(start.elapsed() < LIMIT);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(H1::connect(at(port)).await.get("/echo").await.unwrap().status(), 200);
}

#[tokio::test]
async fn clients_are_told_to_come_again_another_way() {
    let (pod, port) = (Upstream::start(), port());
    let warm = whole(port, &[(pod.addr, true)]);
    let stage = Stage::new(&[("m", warm.clone())]).await;
    let (mut idle, busy, mut late) =
        (H1::connect(at(port)).await, H2::connect(at(port)).await, H1::connect(at(port)).await);
    assert_eq!(idle.get("/echo").await.unwrap().status(), 200);
    let slow = busy.send(request(Method::POST, "/slow", "x"));
    let change = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        stage.set(&[("m", Route { close: true, ..warm })]);
    };
    let (slow, ()) = tokio::join!(slow, change);
    assert_eq!(body(slow.unwrap()).await, "slow", "what goes on is finished");
    let closed = async {
        while !(idle.0.is_closed() && busy.0.is_closed()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, closed).await.unwrap();
    // One that has not asked yet may, once.
    let answer = late.get("/echo").await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["connection"]),
        (200, &"close".parse().unwrap())
    );
}
