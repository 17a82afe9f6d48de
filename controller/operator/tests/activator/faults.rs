//! Pods that fail: what was never sent is sent again, what may have been is not.

use std::time::Duration;

use http::Method;

use crate::stage::{H1, H2, Stage, at, port, request, whole};
use crate::upstream::Upstream;

#[tokio::test]
async fn a_request_that_a_pod_may_have_begun_is_not_sent_again() {
    let (pod, other, port) = (Upstream::start(), Upstream::start(), port());
    let pods = [(pod.addr, true), (other.addr, true)];
    let _stage = Stage::new(&[("m", whole(port, &pods))]).await;
    let mut client = H1::connect(at(port)).await;
    let answer = client.send(request(Method::POST, "/die", "x")).await.unwrap();
    assert_eq!(answer.status(), 502);
    assert!(!answer.headers().contains_key("retry-after"));
    let answer = H2::connect(at(port)).await.send(request(Method::POST, "/die", "x")).await;
    assert_eq!(answer.unwrap().status(), 502);
    assert_eq!(pod.hits() + other.hits(), 2);
    assert_eq!(client.get("/echo").await.unwrap().status(), 200);
}

#[tokio::test]
async fn pods_that_take_no_connection_lose_nothing() {
    let (pod, port) = (Upstream::start(), port());
    let gone = [at(crate::stage::port()), at(crate::stage::port())];
    let pods = [(gone[0], true), (pod.addr, true), (gone[1], true)];
    let stage = Stage::new(&[("m", whole(port, &pods))]).await;
    for _ in 0..40 {
        let mut client = H1::connect(at(port)).await;
        assert_eq!(client.send(request(Method::POST, "/echo", "x")).await.unwrap().status(), 200);
        let answer = H2::connect(at(port)).await.send(request(Method::POST, "/echo", "x")).await;
        assert_eq!(answer.unwrap().status(), 200);
    }
    assert_eq!(pod.hits(), 80);
    // All are gone: the next one waits until one is back.
    let addr = pod.addr;
    drop(pod);
    stage.set(&[("m", whole(port, &[(addr, true)]))]);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let asked = tokio::spawn(async move { H1::connect(at(port)).await.get("/echo").await });
    stage.until("wick_activator_held{namespace=\"ns\",model=\"m\"} 1").await;
    let _pod = Upstream::at(addr);
    assert_eq!(asked.await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn connections_that_a_pod_closed_while_they_were_idle_are_not_used() {
    let (pod, port) = (Upstream::start(), port());
    let _stage = Stage::new(&[("m", whole(port, &[(pod.addr, true)]))]).await;
    let (mut one, two) = (H1::connect(at(port)).await, H2::connect(at(port)).await);
    for round in 0..30 {
        assert_eq!(one.get("/echo").await.unwrap().status(), 200, "round {round}");
        let answer = two.send(request(Method::POST, "/echo", "x")).await.unwrap();
        assert_eq!(answer.status(), 200, "round {round}");
        pod.drop_connections();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(pod.hits(), 60);
}

#[tokio::test]
async fn a_pod_that_is_killed_costs_only_what_it_had() {
    let (pod, other, port) = (Upstream::start(), Upstream::start(), port());
    let one = |addr| whole(port, &[(addr, true)]);
    let stage = Stage::new(&[("m", one(pod.addr))]).await;
    let asked = tokio::spawn(async move { H1::connect(at(port)).await.get("/slow").await });
    stage.until("wick_activator_sent{namespace=\"ns\",model=\"m\"} 1").await;
    while pod.hits() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stage.set(&[("m", whole(port, &[(pod.addr, true), (other.addr, true)]))]);
    drop(pod);
    assert_eq!(asked.await.unwrap().unwrap().status(), 502);
    let mut client = H1::connect(at(port)).await;
    for _ in 0..50 {
        assert_eq!(client.get("/echo").await.unwrap().status(), 200);
    }
    stage.until("wick_activator_sent{namespace=\"ns\",model=\"m\"} 0").await;
}
