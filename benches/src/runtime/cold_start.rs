//! From exec to the first correct answer over HTTP, with warm caches: compiled
//! component, optimised graph and page cache, as on a node that has run it before.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::json;

use crate::bar;
use crate::http::{Client, Prepared};
use crate::packages;
use crate::server;
use crate::setup::Setup;
use crate::stats::{median, quantile, round};

use super::load;

const STARTS: usize = 15;

/// Between two attempts to connect: well under what is measured.
const RETRY: Duration = Duration::from_micros(500);

/// A start that takes longer than this is a failure.
const TIMEOUT: Duration = Duration::from_secs(60);

pub fn run(setup: &Setup) -> anyhow::Result<()> {
    let filetype = packages::filetype(setup, 1)?;
    let sample = setup.sample();
    let json = json!({
        "inputs": [{"name": "bytes", "datatype": "UINT8", "shape": [sample.len()],
            "parameters": {"binary_data_size": sample.len()}}],
        "outputs": [{"name": "label", "parameters": {"binary_data": true}}],
    });
    let request = Prepared::infer("filetype", &json, &[sample]);
    // A BYTES element is its length and its bytes.
    let correct = |tensors: &[u8]| tensors == b"\x06\0\0\0python";
    measure(setup, "cold-start-ms", &filetype, &request, &correct)?;

    let large = packages::resnet(setup)?;
    let request = load::request("resnet", &packages::resnet_input());
    let correct = |tensors: &[u8]| {
        tensors.len() == 4000 && tensors.chunks_exact(4).any(|value| value != [0; 4])
    };
    measure(setup, "cold-start-large-ms", &large, &request, &correct)
}

fn measure(
    setup: &Setup,
    bar: &str,
    package: &Path,
    request: &Prepared,
    correct: &dyn Fn(&[u8]) -> bool,
) -> anyhow::Result<()> {
    let mut times = Vec::new();
    for index in 0..=STARTS {
        let time = one_start(setup, package, request, correct).context("cold start")?;
        eprintln!("{bar}: start {index}: {time:.1} ms");
        // The first start fills the caches.
        if index > 0 {
            times.push(time);
        }
    }
    let detail = json!({
        "starts": STARTS,
        "min_ms": round(quantile(&times, 0.0)),
        "p90_ms": round(quantile(&times, 0.9)),
    });
    bar::report(bar, median(&times), "ms", detail);
    Ok(())
}

fn one_start(
    setup: &Setup,
    package: &Path,
    request: &Prepared,
    correct: &dyn Fn(&[u8]) -> bool,
) -> anyhow::Result<f64> {
    let addr = free_address()?;
    let start = Instant::now();
    let mut child = server::command(setup, &[package], &addr.to_string()).spawn()?;
    let answer = loop {
        ensure!(start.elapsed() < TIMEOUT, "no answer in {TIMEOUT:?}");
        let answer = Client::connect(addr).ok().map(|mut client| client.send(request));
        match answer {
            Some(Ok(answer)) if answer.status == 200 => break answer,
            _ => std::thread::sleep(RETRY),
        }
    };
    let time = start.elapsed().as_secs_f64() * 1e3;
    child.kill()?;
    child.wait()?;
    ensure!(correct(answer.tensors()?), "wrong answer: {}", answer.text());
    Ok(time)
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
