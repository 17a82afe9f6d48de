//! A closed loop of concurrent clients, one thread and connection each. The
//! threads sleep in the kernel nearly all the time, so they cost little.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use serde_json::json;

use crate::direct::Input;
use crate::http::{Client, Prepared};

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

/// Run until a time or a number of requests. Any answer but 200 is an error.
pub fn drive_until(
    addr: SocketAddr,
    request: &Prepared,
    concurrency: usize,
    until: Until,
) -> anyhow::Result<Load> {
    let started = AtomicU64::new(0);
    let start = Instant::now();
    let go_on = || match until {
        Until::Elapsed(time) => start.elapsed() < time,
        Until::Requests(count) => started.fetch_add(1, Ordering::Relaxed) < count,
    };
    let one_client = || -> anyhow::Result<u64> {
        let mut client = Client::connect(addr)?;
        let mut done = 0;
        while go_on() {
            client.send(request)?.tensors()?;
            done += 1;
        }
        Ok(done)
    };
    let requests = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..concurrency).map(|_| scope.spawn(one_client)).collect();
        let done = clients.into_iter().map(|client| client.join().map_err(|_| anyhow!("panic"))?);
        done.sum::<anyhow::Result<u64>>()
    })?;
    Ok(Load { requests, per_second: requests as f64 / start.elapsed().as_secs_f64() })
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
