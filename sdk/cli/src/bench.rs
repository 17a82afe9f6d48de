//! Closed-loop load: so many requests at once, each sent when the one before it was
//! answered, for a time or a number; and what came of it.

mod cpu;
mod stats;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::failure::{Failure, Outcome};
use crate::target::{Call, Target};

pub use stats::{Histogram, Latency};

/// How often the progress bar moves.
const TICK: Duration = Duration::from_millis(100);

/// Failed requests in a row after which a worker stops: a server that is gone does not
/// come back by asking it a million times.
const MAX_FAILURES: u32 = 100;

/// How much load, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub concurrency: usize,
    pub duration: Duration,
    /// Ends earlier after so many.
    pub requests: Option<u64>,
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub concurrency: usize,
    pub seconds: f64,
    /// Answered as they should be.
    pub requests: u64,
    pub per_second: f64,
    pub latency_ms: Latency,
    /// Requests that were not, by status or code.
    pub errors: BTreeMap<String, u64>,
    /// CPU time of this process for each request, client included: for a package that
    /// was loaded into it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_ms_per_request: Option<f64>,
}

/// What one worker counted.
#[derive(Default)]
struct Tally {
    histogram: Histogram,
    errors: BTreeMap<String, u64>,
    first_error: Option<Failure>,
}

/// What workers share.
struct Shared {
    target: Target,
    call: Call,
    end: Instant,
    /// Requests that may still be sent; none is no bound.
    left: Option<AtomicU64>,
    sent: AtomicU64,
}

/// Put load on a target.
///
/// # Errors
/// Not one request was answered; the first reason is returned.
pub async fn load(target: &Target, call: &Call, plan: Plan, bar: &ProgressBar) -> Outcome<Report> {
    let cpu = matches!(target, Target::Local { .. }).then(cpu::time).flatten();
    let start = Instant::now();
    let shared = Arc::new(Shared {
        target: target.clone(),
        call: call.clone(),
        end: start + plan.duration,
        left: plan.requests.map(AtomicU64::new),
        sent: AtomicU64::new(0),
    });
    let mut workers = JoinSet::new();
    for _ in 0..plan.concurrency.max(1) {
        workers.spawn(work(Arc::clone(&shared)));
    }
    let mut total = Tally::default();
    loop {
        match tokio::time::timeout(TICK, workers.join_next()).await {
            Ok(Some(Ok(tally))) => total.add(tally),
            Ok(Some(Err(error))) => {
                return Err(anyhow::Error::new(error).context("a worker ended").into());
            }
            Ok(None) => break,
            Err(_) => show(bar, &shared, plan, start),
        }
    }
    bar.finish_and_clear();
    let seconds = start.elapsed().as_secs_f64();
    let requests = total.histogram.count();
    if requests == 0
        && let Some(failure) = total.first_error
    {
        return Err(failure);
    }
    let cpu = cpu.zip(cpu::time()).map(|(before, after)| after.saturating_sub(before));
    Ok(Report {
        concurrency: plan.concurrency,
        seconds,
        requests,
        per_second: requests as f64 / seconds,
        latency_ms: total.histogram.summary(),
        errors: total.errors,
        cpu_ms_per_request: cpu.map(|cpu| cpu.as_secs_f64() * 1e3 / requests.max(1) as f64),
    })
}

async fn work(shared: Arc<Shared>) -> Tally {
    let mut tally = Tally::default();
    let mut failures = 0;
    while failures < MAX_FAILURES && shared.take() {
        let start = Instant::now();
        match send(&shared.target, &shared.call).await {
            Ok(()) => {
                tally.histogram.record(start.elapsed());
                failures = 0;
            }
            Err((what, failure)) => {
                *tally.errors.entry(what).or_default() += 1;
                tally.first_error.get_or_insert(failure);
                failures += 1;
            }
        }
    }
    tally
}

/// One request; its failure with the word that it is counted under.
async fn send(target: &Target, call: &Call) -> Result<(), (String, Failure)> {
    match (target, call) {
        (Target::Remote { server, .. }, Call::Remote(request)) => {
            match server.measure(request).await {
                Ok(200) => Ok(()),
                // Ask again in the ordinary way for the text of the error.
                Ok(status) => match server.infer(request).await {
                    Ok(_) => Err((status.to_string(), Failure::input(format!("status {status}")))),
                    Err(failure) => Err((status.to_string(), failure)),
                },
                Err(failure) => Err((failure.code().to_owned(), failure)),
            }
        }
        _ => match target.infer(call).await {
            Ok(_) => Ok(()),
            Err(failure) => Err((failure.code().to_owned(), failure)),
        },
    }
}

fn show(bar: &ProgressBar, shared: &Shared, plan: Plan, start: Instant) {
    let sent = shared.sent.load(Ordering::Relaxed);
    let by_time = start.elapsed().as_secs_f64() / plan.duration.as_secs_f64().max(1e-9);
    let by_count = plan.requests.map_or(0.0, |all| sent as f64 / all.max(1) as f64);
    let done = by_time.max(by_count).min(1.0);
    bar.set_position((done * bar.length().unwrap_or(100) as f64) as u64);
    bar.set_message(format!("{:.0} requests/s", sent as f64 / start.elapsed().as_secs_f64()));
}

// === impl Shared, Tally ===

impl Shared {
    /// Whether one more request may be sent.
    fn take(&self) -> bool {
        if Instant::now() >= self.end {
            return false;
        }
        let may = self.left.as_ref().is_none_or(|left| {
            let take = |left: u64| left.checked_sub(1);
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
        });
        if may {
            self.sent.fetch_add(1, Ordering::Relaxed);
        }
        may
    }
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.histogram.add(&other.histogram);
        for (what, count) in other.errors {
            *self.errors.entry(what).or_default() += count;
        }
        if self.first_error.is_none() {
            self.first_error = other.first_error;
        }
    }
}
