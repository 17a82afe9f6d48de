//! Requests a second at concurrency 16 over a bare loop over ONNX Runtime on the
//! same cores, in the thread layout that is fastest for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::bar;
use crate::direct::Floor;
use crate::packages;
use crate::server::Server;
use crate::setup::Setup;
use crate::stats::{median, round};

use super::load;

const ROUNDS: usize = 7;
const CONCURRENCY: usize = 16;

/// How long each contender runs in a round.
const SLICE: Duration = Duration::from_secs(3);

pub fn run(setup: &Setup) -> anyhow::Result<()> {
    let cores = std::thread::available_parallelism()?.get();
    let model = packages::conv_model(setup)?;
    let package = packages::passthrough_default_threads(setup, "conv", &model)?;
    let floor = Floor::new(&setup.onnxruntime)?;
    let server = Server::start(setup, &[&package])?;
    let input = packages::conv_input();
    let request = load::request("conv", &input);
    // Layouts of the floor: many sessions of one thread, or one of many threads.
    let layouts: Vec<(usize, usize)> = vec![(cores, 1), (1, cores), (cores, cores)];
    let mut bare = vec![vec![]; layouts.len()];
    let mut wick = vec![];
    load::drive(server.addr, &request, CONCURRENCY, Duration::from_secs(1))?;
    for _ in 0..ROUNDS {
        for (layout, rates) in layouts.iter().zip(&mut bare) {
            rates.push(bare_rate(&floor, &model, &input, *layout)?);
        }
        wick.push(load::drive(server.addr, &request, CONCURRENCY, SLICE)?.per_second);
    }
    let medians: Vec<f64> = bare.iter().map(|rates| median(rates)).collect();
    let best = medians.iter().copied().fold(0.0, f64::max);
    let detail = json!({
        "wick_per_second": round(median(&wick)),
        "bare_per_second": layouts.iter().zip(&medians)
            .map(|((sessions, threads), rate)| (format!("{sessions}x{threads}"), round(*rate)))
            .collect::<std::collections::BTreeMap<_, _>>(),
        "concurrency": CONCURRENCY,
        "cores": cores,
    });
    bar::report("throughput-vs-ort", median(&wick) / best, "ratio", detail);
    Ok(())
}

fn bare_rate(
    floor: &Floor,
    model: &std::path::Path,
    input: &crate::direct::Input,
    (sessions, threads): (usize, usize),
) -> anyhow::Result<f64> {
    let mut loaded = Vec::new();
    for _ in 0..sessions {
        let mut direct = floor.load(model, threads, input)?;
        direct.run()?;
        loaded.push(direct);
    }
    let done = AtomicU64::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        let loops: Vec<_> = loaded
            .iter_mut()
            .map(|direct| {
                scope.spawn(|| {
                    while start.elapsed() < SLICE {
                        direct.run()?;
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        loops.into_iter().try_for_each(|l| l.join().map_err(|_| anyhow::anyhow!("panic"))?)
    })?;
    Ok(done.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64())
}
