//! What the operator says of itself, in Prometheus' text format.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, Registry, TextEncoder};

/// Seconds of a turn: a few requests to the API server.
const BUCKETS: [f64; 9] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

/// Counters of the operator.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    turns: Histogram,
    failures: IntCounter,
    leader: IntGauge,
}

// === impl Metrics ===

impl Metrics {
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let options = HistogramOpts::new("wick_operator_turn_seconds", "Time of a Model's turn");
        let turns = Histogram::with_opts(options.buckets(BUCKETS.to_vec()))?;
        let failures = IntCounter::new("wick_operator_turn_failures", "Turns that failed")?;
        let leader = IntGauge::new("wick_operator_leader", "1 for the operator that acts")?;
        registry.register(Box::new(turns.clone()))?;
        registry.register(Box::new(failures.clone()))?;
        registry.register(Box::new(leader.clone()))?;
        Ok(Self { registry, turns, failures, leader })
    }

    pub fn turned(&self, took: Duration, succeeded: bool) {
        self.turns.observe(took.as_secs_f64());
        if !succeeded {
            self.failures.inc();
        }
    }

    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    pub fn text(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}
