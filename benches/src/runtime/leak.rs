//! Whether memory grows with the number of requests.

use serde_json::json;

use crate::bar;
use crate::packages;
use crate::server::Server;
use crate::setup::Setup;
use crate::stats::round;

use super::load::{self, Until};

/// Requests before memory is first read: pools and arenas have their size by then.
const FIRST: u64 = 5_000;
const ALL: u64 = 100_000;
const CONCURRENCY: usize = 8;

pub fn run(setup: &Setup) -> anyhow::Result<()> {
    let package = packages::small_relay(setup)?;
    let server = Server::start(setup, &[&package])?;
    let request = load::request("small-relay", &packages::small_input());
    load::drive_until(server.addr, &request, CONCURRENCY, Until::Requests(FIRST))?;
    let first = server.resident_kib()?;
    let rest = Until::Requests(ALL - FIRST);
    let load = load::drive_until(server.addr, &request, CONCURRENCY, rest)?;
    let last = server.resident_kib()?;
    let detail = json!({
        "resident_kib_after_5000": first,
        "resident_kib_after_100000": last,
        "requests_per_second": round(load.per_second),
    });
    bar::report("leak-growth", last as f64 / first as f64, "ratio", detail);
    Ok(())
}
