//! Who waits, in which order, and who is refused.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use http::Request;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::UnboundedReceiverStream;
use wick_serve::Priority;
use wick_testing::onnx;

use crate::support::{Fixture, call, four};

const INFER: &str = "/v2/models/m/infer";

fn late() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn with(parameters: &str) -> String {
    four([0.0; 4]).replacen('{', &format!("{{\"parameters\":{{{parameters}}},"), 1)
}

#[tokio::test]
async fn the_most_important_request_is_answered_first() {
    let fixture = Fixture::adding(1.0, "concurrency = 1").await;
    let live = fixture.repository.peek("m", None).unwrap();
    let permit = live.gate.enter(late(), Priority::DEFAULT).await.unwrap();
    let (said, mut order) = mpsc::unbounded_channel();
    let mut waiting = 0;
    for priority in [8, 0, 2, 1, 2, 99] {
        let (router, said) = (fixture.router(), said.clone());
        let body = with(&format!("\"priority\":{priority}"));
        tokio::spawn(async move {
            let reply = call(router, Request::post(INFER).body(body.into()).unwrap()).await;
            assert_eq!(reply.status, 200, "{}", reply.text());
            said.send(priority).unwrap();
        });
        waiting += 1;
        while live.gate.load() != (1, waiting) {
            tokio::task::yield_now().await;
        }
    }
    drop(permit);
    let mut got = Vec::new();
    for _ in 0..waiting {
        got.push(order.recv().await.unwrap());
    }
    // 0 and what is no level are the default, in the order of their arrival.
    assert_eq!(got, [1, 2, 2, 0, 99, 8]);
    let bad = fixture.post(INFER, with("\"priority\":-1")).await;
    assert_eq!(bad.status, 400, "{}", bad.text());
}

#[tokio::test]
async fn the_queue_s_own_patience_is_503_and_the_client_s_is_504() {
    let limits = "concurrency = 1\nqueue_timeout = \"100ms\"\ntimeout = \"30s\"";
    let fixture = Fixture::adding(1.0, limits).await;
    let live = fixture.repository.peek("m", None).unwrap();
    let _permit = live.gate.enter(late(), Priority::DEFAULT).await.unwrap();
    let patient = fixture.post(INFER, with("\"timeout\":20000000")).await;
    assert_eq!(
        (patient.status.as_u16(), &patient.json()["code"]),
        (503, &json!("waited-too-long"))
    );
    assert_eq!(patient.header("retry-after"), Some("1"));
    let hurried = fixture.post(INFER, with("\"timeout\":20000")).await;
    assert_eq!((hurried.status.as_u16(), &hurried.json()["code"]), (504, &json!("deadline")));
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_back_by_its_own_pace() {
    let fixture = Fixture::adding(1.0, "concurrency = 1\nqueue = 3").await;
    let live = fixture.repository.peek("m", None).unwrap();
    let _permit = live.gate.enter(late(), Priority::DEFAULT).await.unwrap();
    let mut waiters: Vec<_> =
        (0..3).map(|_| Box::pin(live.gate.enter(late(), Priority::DEFAULT))).collect();
    for waiter in &mut waiters {
        assert!(futures::poll!(waiter).is_pending());
    }
    // Nothing is finished while a second passes: four requests take four of them, at least.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let reply = fixture.post(INFER, four([0.0; 4])).await;
    assert_eq!(reply.status, 429);
    let after: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((4..=30).contains(&after), "{after}");
}

#[tokio::test]
async fn a_request_without_a_place_is_refused_before_its_body_is_kept() {
    let fixture = Fixture::adding(1.0, "concurrency = 1\nqueue = 0").await;
    let live = fixture.repository.peek("m", None).unwrap();
    let permit = live.gate.enter(late(), Priority::DEFAULT).await.unwrap();
    // A body that is no request: whoever reads it would say 400.
    let refused = fixture.post(INFER, "no request").await;
    assert_eq!((refused.status.as_u16(), &refused.json()["code"]), (429, &json!("queue-full")));
    // Of a client that asks first, nothing is read at all.
    let never = futures::stream::poll_fn(|_| -> Poll<Option<Result<Bytes, Infallible>>> {
        panic!("the body is read");
    });
    let asking =
        Request::post(INFER).header("expect", "100-continue").body(Body::from_stream(never));
    assert_eq!(fixture.call(asking.unwrap()).await.status, 429);
    drop(permit);
    assert_eq!(fixture.post(INFER, "no request").await.status, 400);
    assert_eq!(fixture.post(INFER, four([0.0; 4])).await.status, 200);
}

#[tokio::test]
async fn a_place_that_is_lost_while_the_body_comes_is_refused_all_the_same() {
    let fixture = Fixture::adding(1.0, "concurrency = 1\nqueue = 0").await;
    let live = fixture.repository.peek("m", None).unwrap();
    let (pieces, body) = mpsc::unbounded_channel::<Result<Bytes, std::io::Error>>();
    let body = Body::from_stream(UnboundedReceiverStream::new(body));
    let text = four([0.0; 4]);
    let (first, second) = text.split_at(20);
    pieces.send(Ok(Bytes::copy_from_slice(first.as_bytes()))).unwrap();
    let mut reply = Box::pin(fixture.post(INFER, body));
    assert!(futures::poll!(&mut reply).is_pending());
    let _permit = Arc::clone(&live.gate).enter(late(), Priority::DEFAULT).await.unwrap();
    pieces.send(Ok(Bytes::copy_from_slice(second.as_bytes()))).unwrap();
    drop(pieces);
    assert_eq!(reply.await.status, 429);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_one_model_does_not_starve_another() {
    const WIDTH: usize = 512;
    let limits = "concurrency = 64\nqueue = 1000";
    let (slow, quick) = (onnx::dense(WIDTH as u64, 12), onnx::add_scalar(1.0, &[4]));
    let fixture = Fixture::new(&[("flood", &slow, limits), ("m", &quick, "")]).await;
    let data = vec!["1"; WIDTH].join(",");
    let body = format!(
        r#"{{"inputs":[{{"name":"x","shape":[1,{WIDTH}],"datatype":"FP32","data":[{data}]}}]}}"#
    );
    let flood = fixture.repository.peek("flood", None).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for _ in 0..96 {
        let (router, body, stop) = (fixture.router(), body.clone(), Arc::clone(&stop));
        clients.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let request = Request::post("/v2/models/flood/infer").body(body.clone().into());
                assert_eq!(call(router.clone(), request.unwrap()).await.status, 200);
            }
        });
    }
    let mut overtaken = Vec::new();
    for _ in 0..15 {
        while flood.gate.load().0 < 64 {
            tokio::task::yield_now().await;
        }
        let before = flood.metrics.success.get();
        assert_eq!(fixture.post(INFER, four([0.0; 4])).await.status, 200);
        overtaken.push(flood.metrics.success.get() - before);
    }
    stop.store(true, Ordering::Relaxed);
    clients.join_all().await;
    // Four are in work on two processors, and one of each model goes in turn. Without shares
    // it would be all 64 that the flood's own door lets in.
    overtaken.sort_unstable();
    assert!(overtaken[overtaken.len() / 2] <= 16, "{overtaken:?}");
}
