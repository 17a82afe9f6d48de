//! The control port: health, and what is asked of Models as a stream.

use std::time::{Duration, Instant};

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use wick_operator::activator::demand::{Demand, Line};

use crate::stage::{H1, LIMIT, Stage, at, port, whole};
use crate::upstream::Upstream;

struct Lines {
    _client: H1,
    body: Incoming,
    rest: Vec<u8>,
}

impl Lines {
    async fn open(stage: &Stage) -> Self {
        let mut client = H1::connect(stage.activator.control()).await;
        let body = client.get("/v1/demand").await.unwrap().into_body();
        Self { _client: client, body, rest: Vec::new() }
    }

    async fn next(&mut self) -> Line {
        loop {
            if let Some(end) = self.rest.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return serde_json::from_slice(&line).unwrap();
            }
            let frame = tokio::time::timeout(LIMIT, self.body.frame()).await.unwrap();
            self.rest.extend_from_slice(&frame.unwrap().unwrap().into_data().unwrap());
        }
    }

    async fn demand(&mut self, wanted: impl Fn(&Demand) -> bool) -> Demand {
        loop {
            if let Line::Demand(demand) = self.next().await
                && wanted(&demand)
            {
                return demand;
            }
        }
    }
}

#[tokio::test]
async fn the_first_request_that_waits_is_told_at_once() {
    let (pod, port) = (Upstream::start(), port());
    let stage = Stage::new(&[("m", whole(port, &[]))]).await;
    let mut lines = Lines::open(&stage).await;
    let first = lines.demand(|demand| demand.name.name == "m").await;
    assert_eq!((first.numbers.held, first.numbers.requests_total), (0, 0));
    // Between two of its turns.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let start = Instant::now();
    let asked = tokio::spawn(async move { H1::connect(at(port)).await.get("/fault").await });
    let held = lines.demand(|demand| demand.numbers.held == 1).await;
    assert!(start.elapsed() < Duration::from_millis(200), "{:?}", start.elapsed());
    assert_eq!(held.numbers.requests_total, 1);
    stage.set(&[("m", whole(port, &[(pod.addr, true)]))]);
    assert_eq!(asked.await.unwrap().unwrap().status(), 500);
    let done = lines.demand(|demand| demand.numbers.held == 0).await;
    let revision = &done.revisions[0];
    assert_eq!((revision.name.as_str(), revision.requests, revision.errors), ("m-1", 1, 1));
    assert_eq!(revision.latency.count(), 1);
    let beat = async { while !matches!(lines.next().await, Line::Heartbeat { heartbeat: 1 }) {} };
    tokio::time::timeout(Duration::from_secs(4), beat).await.unwrap();
}

#[tokio::test]
async fn health_is_of_the_activator_itself() {
    let stage = Stage::new(&[]).await;
    assert_eq!(stage.control("/livez").await, (200, "ok\n".to_owned()));
    assert_eq!(stage.control("/readyz").await, (200, "ok\n".to_owned()));
    assert_eq!(stage.control("/other").await.0, 404);
}
