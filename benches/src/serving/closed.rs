//! A closed loop of connections on one thread: each sends its next request when it has the
//! answer to the last. A thread for each would wake up for each answer, and take from the
//! server the cores that it is measured on.

use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::stats::quantile;

use super::connection::{Connection, Target};
use super::cpu;

/// What one loop reached.
#[derive(Debug)]
pub struct Slice {
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    /// Processor time of the server for a request.
    pub cpu_ms: f64,
}

/// Ask the server with process `pid` for `time`, over `concurrency` connections. They are
/// opened and asked once before the time runs.
pub fn run(target: &Target, pid: u32, concurrency: usize, time: Duration) -> anyhow::Result<Slice> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut connections = Vec::with_capacity(concurrency);
        for _ in 0..concurrency {
            let mut connection = Connection::open(target).await?;
            connection.ask().await?.right()?;
            connections.push(connection);
        }
        let (cpu, start) = (cpu::seconds(pid)?, Instant::now());
        let loops = connections.iter_mut().map(|connection| one(connection, start, time));
        let times: Vec<f64> = futures::future::try_join_all(loops).await?.concat();
        let (elapsed, cpu) = (start.elapsed().as_secs_f64(), cpu::seconds(pid)? - cpu);
        let requests = times.len() as f64;
        Ok(Slice {
            per_second: requests / elapsed,
            p50_ms: quantile(&times, 0.5),
            p99_ms: quantile(&times, 0.99),
            cpu_ms: cpu * 1e3 / requests,
        })
    })
}

async fn one(
    connection: &mut Connection,
    start: Instant,
    time: Duration,
) -> anyhow::Result<Vec<f64>> {
    let mut times = Vec::new();
    while start.elapsed() < time {
        let sent = Instant::now();
        connection.ask().await?.right().context("while it was timed")?;
        times.push(sent.elapsed().as_secs_f64() * 1e3);
    }
    Ok(times)
}
