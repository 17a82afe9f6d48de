//! Asks pods whether they are ready, tightly while requests wait for one: the kubelet asks
//! each second, and what it learns takes its way over the API server.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::model::Model;
use super::pod::Pod;

/// How often a pod is asked while requests wait. A question costs a pod that starts some tens of
/// microseconds.
const TIGHT: Duration = Duration::from_millis(10);

/// How often a pod is asked that did not take a connection, while nobody waits for it.
const LOOSE: Duration = Duration::from_millis(500);

/// Pods of one Model that are asked at once; there is no hurry for a second one.
const MAX_PROBED: usize = 16;

/// Longest wait for a connection. A packet that is lost is sent again after a second, and the
/// next question comes sooner.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(100);

/// Longest wait for an answer: a pod that starts has better things to do.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// As much of the answer as says its status.
const STATUS_LEN: usize = 12;

const QUESTION: &str = "GET /v2/health/ready HTTP/1.1\r\nHost: wick\r\nConnection: close\r\n\r\n";

/// Ask the pods of a Model whenever there is a reason, until this is dropped.
pub async fn run(model: Arc<Model>) {
    let mut probes = JoinSet::new();
    loop {
        model.probing.notified().await;
        loop {
            let held = model.held() > 0;
            let unproven = model.unproven();
            if held && !unproven.is_empty() {
                model.cold.address(Instant::now());
            }
            // A pod that Kubernetes says is not ready is asked only for those who wait.
            let asked = unproven.into_iter().filter(|pod| held || pod.is_suspect());
            let mut any = false;
            for pod in asked.take(MAX_PROBED) {
                any = true;
                if pod.begin_probe() {
                    probes.spawn(probe(Arc::clone(&model), pod));
                }
            }
            while probes.try_join_next().is_some() {}
            if !held && !any {
                break;
            }
            // Whoever waits may look again: a turn is lost with a client that leaves.
            model.wake();
            tokio::time::sleep(if held { TIGHT } else { LOOSE }).await;
        }
        if model.held() == 0 {
            model.cold.give_up();
        }
    }
}

async fn probe(model: Arc<Model>, pod: Arc<Pod>) {
    let ready = is_ready(pod.address).await;
    pod.end_probe();
    if ready.unwrap_or(false) {
        pod.prove();
        model.wake();
    }
}

async fn is_ready(address: SocketAddr) -> io::Result<bool> {
    let connecting = TcpStream::connect(address);
    let mut stream = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await??;
    let asked = async {
        stream.write_all(QUESTION.as_bytes()).await?;
        let mut status = [0; STATUS_LEN];
        stream.read_exact(&mut status).await?;
        Ok(status == *b"HTTP/1.1 200")
    };
    tokio::time::timeout(ANSWER_TIMEOUT, asked).await?
}
