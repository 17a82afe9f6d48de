//! Models without pods: requests wait, are bounded, and go on as soon as a pod answers.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::Method;
use wick_operator::activator::table::Route;

use crate::stage::{H1, H2, LIMIT, Stage, at, body, port, request, whole};
use crate::upstream::Upstream;

const NONE_HELD: &str = "wick_activator_held{namespace=\"ns\",model=\"m\"} 0";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_500_requests_at_once_to_a_cold_model_none_is_lost() {
    let (pod, port) = (Upstream::start(), port());
    pod.state.ready.store(false, Ordering::SeqCst);
    let stage = Stage::new(&[("m", whole(port, &[]))]).await;
    let many = (0..500).map(|n| {
        tokio::spawn(async move {
            if n % 2 == 0 {
                let mut client = H1::connect(at(port)).await;
                return client.get("/short").await.unwrap().status().as_u16();
            }
            let client = H2::connect(at(port)).await;
            client.send(request(Method::POST, "/short", "x")).await.unwrap().status().as_u16()
        })
    });
    let many: Vec<_> = many.collect();
    stage.until("wick_activator_held{namespace=\"ns\",model=\"m\"} 500").await;
    // The address comes first, and Kubernetes never says that it is ready.
    stage.set(&[("m", whole(port, &[(pod.addr, false)]))]);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(pod.hits(), 0, "it is not ready");
    pod.state.ready.store(true, Ordering::SeqCst);
    let (ready, mut lost) = (Instant::now(), 0);
    for one in many {
        lost += usize::from(one.await.unwrap() != 200);
    }
    println!("lost requests: {lost}, all answered {:?} after the pod was ready", ready.elapsed());
    assert_eq!((lost, pod.hits()), (0, 500));
    let most = pod.state.most.load(Ordering::SeqCst);
    assert!(most <= 32, "{most} at once are more than a worker's queue may take");
    stage.until(NONE_HELD).await;
    let (_, metrics) = stage.control("/metrics").await;
    for phase in ["decide", "schedule", "sandbox", "load", "infer"] {
        let line = format!(
            "wick_activator_cold_start_seconds_count{{namespace=\"ns\",model=\"m\",phase=\"{phase}\"}} 1"
        );
        assert!(metrics.lines().any(|one| one == line), "no {line} in\n{metrics}");
    }
}

#[tokio::test]
async fn a_pod_is_used_moments_after_it_listens() {
    let port = port();
    let later = at(crate::stage::port());
    let stage = Stage::new(&[("m", whole(port, &[(later, false)]))]).await;
    let asked = tokio::spawn(async move { H1::connect(at(port)).await.get("/echo").await });
    stage.until("wick_activator_held{namespace=\"ns\",model=\"m\"} 1").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let _pod = Upstream::at(later);
    let listens = Instant::now();
    assert_eq!(asked.await.unwrap().unwrap().status(), 200);
    // A kubelet would ask once a second.
    assert!(listens.elapsed() < Duration::from_millis(500), "{:?}", listens.elapsed());
}

#[tokio::test]
async fn what_may_not_wait_is_refused_with_a_reason() {
    let port = port();
    let cold = whole(port, &[]);
    let stage = Stage::new(&[("m", Route { max_held: 1, ..cold.clone() })]).await;
    let first = tokio::spawn(async move { H1::connect(at(port)).await.get("/echo").await });
    stage.until("wick_activator_held{namespace=\"ns\",model=\"m\"} 1").await;
    let mut client = H1::connect(at(port)).await;
    let refused = client.get("/echo").await.unwrap();
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["retry-after"]),
        (429, &"1".parse().unwrap())
    );
    assert!(body(refused).await.contains("\"error\""));

    // Those who wait are told when it is in vain.
    stage.set(&[("m", Route { hold: false, ..cold.clone() })]);
    assert_eq!(first.await.unwrap().unwrap().status(), 503);
    let refused = client.get("/echo").await.unwrap();
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["retry-after"]),
        (503, &"1".parse().unwrap())
    );

    let hold_timeout = Duration::from_millis(50);
    stage.set(&[("m", Route { hold_timeout, ..cold })]);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let start = Instant::now();
    let mut other = H1::connect(at(port)).await;
    assert_eq!(other.get("/echo").await.unwrap().status(), 503);
    assert!(start.elapsed() >= hold_timeout && start.elapsed() < LIMIT);
    let labels = "namespace=\"ns\",model=\"m\",reason=\"held-too-long\"";
    stage.until(&format!("wick_activator_refused_total{{{labels}}} 1")).await;
}

#[tokio::test]
async fn clients_that_leave_while_they_wait_leave_nothing_behind() {
    let (pod, port) = (Upstream::start(), port());
    let stage = Stage::new(&[("m", whole(port, &[]))]).await;
    let mut leaving = Vec::new();
    for _ in 0..20 {
        leaving.push(tokio::spawn(async move {
            let client = H2::connect(at(port)).await;
            client.send(request(Method::POST, "/echo", "x")).await
        }));
        leaving.push(tokio::spawn(async move { H1::connect(at(port)).await.get("/echo").await }));
    }
    stage.until("wick_activator_held{namespace=\"ns\",model=\"m\"} 40").await;
    for one in leaving {
        one.abort();
    }
    stage.until(NONE_HELD).await;
    stage.set(&[("m", whole(port, &[(pod.addr, true)]))]);
    // Who comes after them does not wait for their turn.
    assert_eq!(H1::connect(at(port)).await.get("/echo").await.unwrap().status(), 200);
    assert_eq!(pod.hits(), 1);
}

#[tokio::test]
async fn health_of_a_cold_model_does_not_wake_it() {
    let port = port();
    let cold = whole(port, &[]);
    let stage = Stage::new(&[("m", cold.clone())]).await;
    let mut client = H1::connect(at(port)).await;
    for path in ["/v2/health/live", "/v2/health/ready"] {
        assert_eq!(client.get(path).await.unwrap().status(), 200, "{path}");
    }
    stage.until("wick_activator_requests_total{namespace=\"ns\",model=\"m\"} 0").await;
    stage.set(&[("m", Route { hold: false, ..cold })]);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(client.get("/v2/health/ready").await.unwrap().status(), 503);
    assert_eq!(client.get("/v2/health/live").await.unwrap().status(), 200);
}
