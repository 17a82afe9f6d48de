//! What joining requests gains for a network that waits for its weights: 48 MB of
//! dense layers are read from memory once for a batch instead of once a request.

use std::time::Duration;

use serde_json::json;

use crate::bar;
use crate::packages;
use crate::server::Server;
use crate::setup::Setup;
use crate::stats::{median, round};

use super::load;

const ROUNDS: usize = 7;
const CONCURRENCY: usize = 32;
const SLICE: Duration = Duration::from_secs(3);

pub fn run(setup: &Setup) -> anyhow::Result<()> {
    let plain = packages::dense(setup, "dense", None)?;
    let batched = packages::dense(setup, "dense-batched", Some("{ max = 16, delay = \"1ms\" }"))?;
    let server = Server::start(setup, &[&plain, &batched])?;
    let input = packages::dense_input();
    let mut rates = [vec![], vec![]];
    let mut cpu = [vec![], vec![]];
    for round in 0..=ROUNDS {
        for (index, model) in ["dense", "dense-batched"].into_iter().enumerate() {
            let before = server.cpu_seconds()?;
            let request = load::request(model, &input);
            let load = load::drive(server.addr, &request, CONCURRENCY, SLICE)?;
            let used = server.cpu_seconds()? - before;
            // The first round warms.
            if round > 0 {
                rates[index].push(load.per_second);
                cpu[index].push(used * 1e3 / load.requests as f64);
            }
        }
    }
    let [plain, batched] = rates.map(|rates| median(&rates));
    let [plain_cpu, batched_cpu] = cpu.map(|cpu| median(&cpu));
    let detail = json!({
        "plain_per_second": round(plain),
        "batched_per_second": round(batched),
        "plain_cpu_ms_per_request": round(plain_cpu),
        "batched_cpu_ms_per_request": round(batched_cpu),
        "concurrency": CONCURRENCY,
    });
    bar::report("batching-gain", batched / plain, "ratio", detail);
    Ok(())
}
