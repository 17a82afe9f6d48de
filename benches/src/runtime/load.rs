//! A closed loop of concurrent clients on one thread. A thread for each would wake up
//! for each answer, and take from the server the cores that it is measured on.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::direct::Input;
use crate::http::{Answer, Prepared};

/// What a loop reached.
pub struct Load {
    pub requests: u64,
    pub per_second: f64,
}

/// When a loop ends.
#[derive(Clone, Copy)]
pub enum Until {
    Elapsed(Duration),
    Requests(u64),
}

/// Run for `time`.
pub fn drive(
    addr: SocketAddr,
    request: &Prepared,
    concurrency: usize,
    time: Duration,
) -> anyhow::Result<Load> {
    drive_until(addr, request, concurrency, Until::Elapsed(time))
}

/// Run for `time` against a server whose answers are no tensors.
pub fn drive_plain(
    addr: SocketAddr,
    request: &Prepared,
    concurrency: usize,
    time: Duration,
) -> anyhow::Result<Load> {
    let right = |answer: &Answer| {
        ensure!(answer.status == 200, "status {}", answer.status);
        Ok(())
    };
    run(addr, request, concurrency, Until::Elapsed(time), &right)
}

/// Run until a time or a number of requests. Any answer but 200 is an error.
pub fn drive_until(
    addr: SocketAddr,
    request: &Prepared,
    concurrency: usize,
    until: Until,
) -> anyhow::Result<Load> {
    run(addr, request, concurrency, until, &|answer| answer.tensors().map(drop))
}

fn run(
    addr: SocketAddr,
    request: &Prepared,
    concurrency: usize,
    until: Until,
    right: &dyn Fn(&Answer) -> anyhow::Result<()>,
) -> anyhow::Result<Load> {
    let started = Cell::new(0_u64);
    let start = Instant::now();
    let go_on = || {
        started.set(started.get() + 1);
        match until {
            Until::Elapsed(time) => start.elapsed() < time,
            Until::Requests(count) => started.get() <= count,
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let clients = (0..concurrency).map(|_| one_client(addr, request, &go_on, right));
    let done = runtime.block_on(futures::future::try_join_all(clients))?;
    let requests = done.iter().sum::<u64>();
    Ok(Load { requests, per_second: requests as f64 / start.elapsed().as_secs_f64() })
}

async fn one_client(
    addr: SocketAddr,
    request: &Prepared,
    go_on: &dyn Fn() -> bool,
    right: &dyn Fn(&Answer) -> anyhow::Result<()>,
) -> anyhow::Result<u64> {
    let mut stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(64 << 10);
    let mut done = 0;
    while go_on() {
        stream.write_all(request.bytes()).await?;
        buffer.clear();
        let answer = loop {
            if let Some(answer) = Answer::parse(&buffer)? {
                break answer;
            }
            ensure!(stream.read_buf(&mut buffer).await? > 0, "the connection was closed");
        };
        right(&answer)?;
        done += 1;
    }
    Ok(done)
}

/// A binary request for a generated model, whose input is called `x`.
pub fn request(model: &str, input: &Input) -> Prepared {
    request_named(model, input, "x")
}

/// A binary request for a model with one input.
pub fn request_named(model: &str, input: &Input, name: &str) -> Prepared {
    let bytes = input.bytes();
    let json = json!({
        "inputs": [{"name": name, "datatype": input.datatype(), "shape": input.shape(),
            "parameters": {"binary_data_size": bytes.len()}}],
        "parameters": {"binary_data_output": true},
    });
    Prepared::infer(model, &json, &[&bytes])
}
