//! wick alone, with three times as many requests as it can serve. They come at their times
//! whether or not the last ones are answered, as those of many clients do; a request's time
//! runs from when it should have been sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::bar;
use crate::packages;
use crate::setup::Setup;
use crate::stats::{quantile, round};

use super::connection::{Connection, Target};
use super::lineup;
use super::process::Process;
use super::question::{Protocol, Question};
use super::rounds::Pace;
use super::{closed, cpu};

/// The package's: longer than the queue of a server that keeps up ever is.
const QUEUE_TIMEOUT: Duration = Duration::from_millis(100);

/// Load, in parts of what the server can do.
const TIMES_CAPACITY: f64 = 3.0;

/// Requests at once that measure the capacity: what two cores have in work without a queue.
const CAPACITY_CONCURRENCY: usize = 4;

/// Requests without an answer that end the benchmark: a server that sheds has a queue and
/// its work open, far fewer.
const MAX_OPEN: usize = 2048;

/// When memory must have stopped to grow, and what an allocator may still take after it.
const SETTLED: Duration = Duration::from_secs(5);
const GROWTH_MIB: f64 = 8.0;

/// How often memory is looked at, and due requests are sent.
const SAMPLE: Duration = Duration::from_millis(500);
const TICK: Duration = Duration::from_millis(2);

/// Idle connections; a new one is opened when there is none.
type Pool = Arc<Mutex<Vec<Connection>>>;

/// What came of a request: its status and its time in milliseconds.
type Outcome = (u16, f64);

struct Overload {
    outcomes: Vec<Outcome>,
    /// When, in seconds, and how much, in MiB.
    resident: Vec<(f64, f64)>,
}

pub fn run(setup: &Setup, ask: &Question, pace: Pace, about: &Value) -> anyhow::Result<()> {
    let package = packages::impatient(setup, "overload", &ask.model, QUEUE_TIMEOUT)?;
    let mut server = lineup::wick(setup, &[package])?;
    server.wait_ready("overload")?;
    let protocol = Protocol::Binary;
    let request = ask.request(protocol, "overload");
    let target = Target { addr: server.http, protocol, request };
    let (pid, time) = (server.pid(), pace.overload / 6);
    let unloaded = closed::run(&target, pid, 1, time)?.p99_ms;
    let capacity = closed::run(&target, pid, CAPACITY_CONCURRENCY, time)?.per_second;
    eprintln!("overload: {capacity:.0} requests a second are its capacity");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let overload = open_loop(&server, &target, capacity * TIMES_CAPACITY, pace.overload);
    let overload = runtime.block_on(overload)?;
    overload.report(unloaded, capacity, about)
}

async fn open_loop(
    server: &Process,
    target: &Target,
    per_second: f64,
    time: Duration,
) -> anyhow::Result<Overload> {
    let (pool, mut open) = (Pool::default(), JoinSet::new());
    let mut overload = Overload { outcomes: Vec::new(), resident: Vec::new() };
    let (start, mut sent) = (Instant::now(), 0_u32);
    let mut ticks = tokio::time::interval(TICK);
    while start.elapsed() < time {
        ticks.tick().await;
        while f64::from(sent) < start.elapsed().as_secs_f64() * per_second {
            let due = start + Duration::from_secs_f64(f64::from(sent) / per_second);
            open.spawn(one(Arc::clone(&pool), target.clone(), due));
            sent += 1;
        }
        while let Some(done) = open.try_join_next() {
            overload.outcomes.push(done??);
        }
        ensure!(open.len() < MAX_OPEN, "{MAX_OPEN} requests are open: wick does not shed load");
        let next = SAMPLE.as_secs_f64() * overload.resident.len() as f64;
        if start.elapsed().as_secs_f64() >= next {
            let resident = cpu::resident_mib(server.pid())?;
            overload.resident.push((start.elapsed().as_secs_f64(), resident));
        }
    }
    while let Some(done) = open.join_next().await {
        overload.outcomes.push(done??);
    }
    Ok(overload)
}

async fn one(pool: Pool, target: Target, due: Instant) -> anyhow::Result<Outcome> {
    let idle = pool.lock().pop();
    let again = match idle {
        Some(mut connection) => connection.ask().await.ok().map(|reply| (connection, reply)),
        None => None,
    };
    // A server may close a connection that is idle: as HTTP clients do, ask on another.
    let (connection, reply) = match again {
        Some(answered) => answered,
        None => {
            let mut connection = Connection::open(&target).await?;
            let reply = connection.ask().await?;
            (connection, reply)
        }
    };
    pool.lock().push(connection);
    if !matches!(reply.status, 200 | 429 | 503) {
        reply.right().context("a refusal must be a 429 or a 503")?;
    }
    Ok((reply.status, due.elapsed().as_secs_f64() * 1e3))
}

// === impl Overload ===

impl Overload {
    fn report(&self, unloaded_ms: f64, capacity: f64, about: &Value) -> anyhow::Result<()> {
        let admitted = self.times(200);
        ensure!(!admitted.is_empty(), "no request was admitted");
        let refused = [429, 503].map(|status| self.times(status));
        ensure!(refused.iter().any(|times| !times.is_empty()), "no request was refused");
        let p99 = quantile(&admitted, 0.99);
        let growth = self.growth_mib();
        let bound_ms = unloaded_ms + QUEUE_TIMEOUT.as_secs_f64() * 1e3;
        let detail = json!({
            "machine": about,
            "capacity_per_second": round(capacity),
            "unloaded_p99_ms": round(unloaded_ms),
            "queue_timeout_ms": QUEUE_TIMEOUT.as_millis() as u64,
            "admitted": admitted.len(),
            "admitted_p50_ms": round(quantile(&admitted, 0.5)),
            "admitted_p99_ms": round(p99),
            "refused_429": refused[0].len(),
            "refused_503": refused[1].len(),
            "refused_p99_ms": round(quantile(&refused.concat(), 0.99)),
            "resident_growth_after_5_s_mib": growth.map(round),
        });
        bar::report("overload-p99-ratio", p99 / bound_ms, "ratio", detail);
        match growth {
            Some(growth) if growth > GROWTH_MIB => {
                bail!("memory grew by {growth:.1} MiB after {SETTLED:?} of overload")
            }
            Some(_) => Ok(()),
            None => bail!("the overload was too short to see whether memory grows"),
        }
    }

    fn times(&self, status: u16) -> Vec<f64> {
        let with = self.outcomes.iter().filter(|(got, _)| *got == status);
        with.map(|(_, time)| *time).collect()
    }

    /// The most memory after it should have settled, over the most before.
    fn growth_mib(&self) -> Option<f64> {
        let most = |after: bool| {
            let part = self.resident.iter();
            let part = part.filter(|(at, _)| (*at > SETTLED.as_secs_f64()) == after);
            part.map(|(_, mib)| *mib).reduce(f64::max)
        };
        Some(most(true)? - most(false)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_counts_from_when_memory_should_have_settled() {
        let resident = vec![(0.0, 10.0), (4.5, 40.0), (5.5, 41.0), (29.5, 44.0)];
        let overload = Overload { outcomes: Vec::new(), resident };
        assert_eq!(overload.growth_mib(), Some(4.0));
    }
}
