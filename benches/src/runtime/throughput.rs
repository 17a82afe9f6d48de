//! Requests a second at concurrency 16 over a bare loop over ONNX Runtime on the
//! same cores, in the thread layout that is fastest for it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::bar;
use crate::direct::{Floor, Input};
use crate::packages;
use crate::server::Server;
use crate::setup::Setup;
use crate::stats::{median, round};

use super::load;

const ROUNDS: usize = 7;
const CONCURRENCY: usize = 16;

/// How long each contender runs in a round.
const SLICE: Duration = Duration::from_secs(2);

/// A model, and how it is asked.
struct Case<'a> {
    name: &'a str,
    model: PathBuf,
    input: Input,
    input_name: &'a str,
}

/// Rates of one case, in requests a second.
struct Rates {
    /// With one thread for an inference, as a package for throughput asks.
    wick: f64,
    /// With the default, a thread for each core, which is for latency.
    wick_default: f64,
    /// By layout: sessions and threads of each.
    bare: BTreeMap<String, f64>,
    best: f64,
}

pub fn run(setup: &Setup) -> anyhow::Result<()> {
    let floor = Floor::new(&setup.onnxruntime)?;
    let model = setup.models.join("magika/model.onnx");
    let files = packages::magika_files(&model, &floor)?;
    let magika =
        Case { name: "magika", model, input: packages::magika_input(files), input_name: "bytes" };
    let conv = Case {
        name: "conv",
        model: packages::conv_model(setup, &floor)?,
        input: packages::conv_input(),
        input_name: "x",
    };
    let [magika, conv] = [rates(setup, &floor, &magika)?, rates(setup, &floor, &conv)?];
    // The bar is the real model's. The generated one moves 160 MB of pictures a second
    // through the loopback, on the cores that are measured.
    let detail = json!({
        "concurrency": CONCURRENCY,
        "magika_files": files,
        "magika_8_kb_a_file": magika.json(),
        "conv_net_600_kb_input": conv.json(),
    });
    bar::report("throughput-vs-ort", magika.ratio(), "ratio", detail);
    Ok(())
}

fn rates(setup: &Setup, floor: &Floor, case: &Case<'_>) -> anyhow::Result<Rates> {
    let cores = std::thread::available_parallelism()?.get();
    let default_name = format!("{}-default", case.name);
    let one = packages::passthrough(setup, case.name, &case.model, 1)?;
    let default = packages::passthrough_default_threads(setup, &default_name, &case.model)?;
    let server = Server::start(setup, &[&one, &default])?;
    let requests = [case.name, &default_name]
        .map(|model| load::request_named(model, &case.input, case.input_name));
    // Layouts of the floor: many sessions of one thread, or one of many threads.
    let layouts = [(cores, 1), (1, cores), (cores, cores)];
    let mut bare = vec![vec![]; layouts.len()];
    let mut wick = [vec![], vec![]];
    for _ in 0..ROUNDS {
        for (layout, rates) in layouts.iter().zip(&mut bare) {
            rates.push(bare_rate(floor, &case.model, &case.input, *layout)?);
        }
        for (request, rates) in requests.iter().zip(&mut wick) {
            rates.push(load::drive(server.addr, request, CONCURRENCY, SLICE)?.per_second);
        }
    }
    let name = |(sessions, threads): &(usize, usize)| format!("{sessions}x{threads}");
    let medians = bare.iter().map(|rates| median(rates));
    let bare: BTreeMap<_, _> = layouts.iter().map(name).zip(medians).collect();
    let best = bare.values().copied().fold(0.0, f64::max);
    let [wick, wick_default] = wick.map(|rates| median(&rates));
    Ok(Rates { wick, wick_default, bare, best })
}

impl Rates {
    fn ratio(&self) -> f64 {
        self.wick / self.best
    }

    fn json(&self) -> serde_json::Value {
        let bare: BTreeMap<_, _> = self.bare.iter().map(|(k, v)| (k, round(*v))).collect();
        json!({
            "ratio": round(self.ratio()),
            "wick_per_second_one_thread": round(self.wick),
            "wick_per_second_default_threads": round(self.wick_default),
            "bare_per_second_by_sessions_x_threads": bare,
        })
    }
}

fn bare_rate(
    floor: &Floor,
    model: &Path,
    input: &Input,
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
