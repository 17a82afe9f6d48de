//! What Prometheus sees: Triton's names as Triton spells them, and wick's own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::{
    GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};
use wick_engine::{GraphStatus, Model, ModelKind};

use crate::respond::FailureClass;
use crate::traffic::{Counts, Traffic};

/// Rows of a batch that are told apart: powers of two up to more than pays.
const BATCH_BUCKETS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// Labels of where a graph runs.
const IN_USE: &[&str] = &["model", "graph", "backend", "device", "provider"];

/// Labels of what belongs to a version of a model.
const MODEL: &[&str] = &["model", "version"];

/// All metrics of a server. Cloning shares them.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    success: IntCounterVec,
    failure: IntCounterVec,
    count: IntCounterVec,
    exec: IntCounterVec,
    pending: IntGaugeVec,
    in_flight: IntGaugeVec,
    request_us: IntCounterVec,
    queue_us: IntCounterVec,
    compute_us: IntCounterVec,
    device: IntGaugeVec,
    share: GaugeVec,
    reloads: IntCounterVec,
    cold_start: GaugeVec,
    instances: IntCounterVec,
    batch: HistogramVec,
    counts: Arc<Counts>,
}

/// What was taken over from a model's graphs, whose counts only grow.
#[derive(Debug, Default)]
pub struct GraphsSeen {
    executions: u64,
    /// Runs by graph and rows.
    batches: BTreeMap<(String, u64), u64>,
}

/// The series of one version of one model, looked up once.
#[derive(Debug)]
pub struct ModelMetrics {
    pub success: IntCounter,
    failure: [IntCounter; FailureClass::ALL.len()],
    pub count: IntCounter,
    pub exec: IntCounter,
    pub pending: IntGauge,
    pub in_flight: IntGauge,
    pub request_us: IntCounter,
    pub queue_us: IntCounter,
    pub compute_us: IntCounter,
    pub instances: IntCounter,
    /// What of the graphs' counts is in the metrics already.
    pub graphs: Mutex<GraphsSeen>,
    /// Milliseconds since 1970 of the last success, 0 for none.
    last_success: AtomicU64,
    /// How often the model was loaded again onto a device that did not answer.
    pub reloads: IntCounter,
    /// Of all models together.
    counts: Arc<Counts>,
}

// === impl Metrics ===

impl Metrics {
    /// Make the metrics and register them.
    ///
    /// # Errors
    /// The registry holds one of these names already.
    pub fn register(registry: Registry) -> prometheus::Result<Self> {
        let counter =
            |name, labels, help| add(&registry, IntCounterVec::new(Opts::new(name, help), labels)?);
        let gauge =
            |name, labels, help| add(&registry, IntGaugeVec::new(Opts::new(name, help), labels)?);
        let seconds =
            Opts::new("wick_cold_start_seconds", "Time of a model's last load, by its phases");
        let share =
            Opts::new("wick_device_share", "Part of a graph's nodes that run on its device");
        let rows = HistogramOpts::new("wick_batch_size", "Rows of the runs of batched graphs")
            .buckets(BATCH_BUCKETS.to_vec());
        Ok(Self {
            success: counter("nv_inference_request_success", MODEL, "Successful requests")?,
            failure: counter(
                "nv_inference_request_failure",
                &["model", "version", "reason"],
                "Failed requests, by Triton's reasons",
            )?,
            count: counter("nv_inference_count", MODEL, "Inferences")?,
            exec: counter("nv_inference_exec_count", MODEL, "Executions: batches count once")?,
            pending: gauge(
                "nv_inference_pending_request_count",
                MODEL,
                "Requests that wait for their turn",
            )?,
            in_flight: gauge(
                "wick_requests_in_flight",
                MODEL,
                "Requests that have come and are not answered yet, those that wait included",
            )?,
            request_us: counter(
                "nv_inference_request_duration_us",
                MODEL,
                "Time of successful requests, in microseconds",
            )?,
            queue_us: counter(
                "nv_inference_queue_duration_us",
                MODEL,
                "Time of waiting for a turn, in microseconds",
            )?,
            compute_us: counter(
                "nv_inference_compute_infer_duration_us",
                MODEL,
                "Time of inference with its handler, in microseconds",
            )?,
            device: gauge(
                "wick_device_in_use",
                IN_USE,
                "1 for the backend, kind of device and provider that a graph runs on",
            )?,
            share: add(&registry, GaugeVec::new(share, &["model", "graph"])?)?,
            reloads: counter(
                "wick_device_reloads",
                MODEL,
                "Loads onto a device that had not answered",
            )?,
            cold_start: add(&registry, GaugeVec::new(seconds, &["model", "phase"])?)?,
            instances: counter(
                "wick_instance_starts",
                MODEL,
                "WebAssembly instances started for requests",
            )?,
            batch: add(&registry, HistogramVec::new(rows, &["model", "graph"])?)?,
            counts: Arc::default(),
            registry,
        })
    }

    /// Where another part of the server registers its own metrics.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The series of a model's version.
    pub fn model(&self, model: &str, version: &str) -> ModelMetrics {
        let labels = &[model, version];
        ModelMetrics {
            success: self.success.with_label_values(labels),
            failure: FailureClass::ALL
                .map(|class| self.failure.with_label_values(&[model, version, class.as_str()])),
            count: self.count.with_label_values(labels),
            exec: self.exec.with_label_values(labels),
            pending: self.pending.with_label_values(labels),
            in_flight: self.in_flight.with_label_values(labels),
            request_us: self.request_us.with_label_values(labels),
            queue_us: self.queue_us.with_label_values(labels),
            compute_us: self.compute_us.with_label_values(labels),
            instances: self.instances.with_label_values(labels),
            graphs: Mutex::default(),
            last_success: AtomicU64::new(0),
            reloads: self.reloads.with_label_values(labels),
            counts: Arc::clone(&self.counts),
        }
    }

    /// How requests of all models went.
    pub fn traffic(&self) -> Traffic {
        self.counts.read()
    }

    /// Say where a model's graphs run, and no longer where `old` ones ran.
    pub fn set_devices(&self, model: &str, old: &[GraphStatus], new: &[GraphStatus]) {
        let labels = |graph: &GraphStatus| {
            let in_use = &graph.device;
            let device = in_use.device.kind.as_str().to_owned();
            let provider = in_use.device.provider.clone();
            [model.to_owned(), graph.name.clone(), in_use.backend.clone(), device, provider]
        };
        for graph in old {
            // They are absent if the metrics were made after the old graphs.
            let _ = self.device.remove_label_values(&labels(graph));
            let _ = self.share.remove_label_values(&[model, &graph.name]);
        }
        for graph in new {
            self.device.with_label_values(&labels(graph)).set(1);
            let share = f64::from(graph.device.share);
            self.share.with_label_values(&[model, &graph.name]).set(share);
        }
    }

    /// Take over what a model's graphs have counted since the last time. Without a
    /// handler their runs are the model's executions: fewer than its requests where
    /// they are batched.
    pub fn take_graphs(&self, name: &str, model: &Model, metrics: &ModelMetrics) {
        let mut seen = metrics.graphs.lock();
        let mut executions = 0;
        for (graph, stats) in model.graph_stats() {
            executions += stats.executions;
            for (rows, runs) in stats.batch_sizes {
                let before = seen.batches.entry((graph.clone(), rows)).or_default();
                let series = self.batch.with_label_values(&[name, &graph]);
                for _ in *before..runs {
                    series.observe(rows as f64);
                }
                *before = runs;
            }
        }
        if model.kind() == ModelKind::Passthrough {
            metrics.exec.inc_by(executions.saturating_sub(seen.executions));
            seen.executions = executions;
        }
    }

    /// Record how long a phase of loading took.
    pub fn set_cold_start(&self, model: &str, phase: &str, time: Duration) {
        self.cold_start.with_label_values(&[model, phase]).set(time.as_secs_f64());
    }

    /// Everything in Prometheus' text format.
    ///
    /// # Errors
    /// A metric of a caller's own registry cannot be written.
    pub fn text(&self) -> prometheus::Result<Vec<u8>> {
        let mut text = TextEncoder::new().encode_to_string(&self.registry.gather())?;
        self.traffic().write(&mut text);
        Ok(text.into_bytes())
    }
}

// === impl ModelMetrics ===

impl ModelMetrics {
    /// Count a request that was answered after `took`.
    pub fn succeeded(&self, took: Duration) {
        self.success.inc();
        self.count.inc();
        let us = micros(took);
        self.request_us.inc_by(us);
        self.counts.succeeded(us);
        self.last_success.store(unix_millis(), Ordering::Relaxed);
    }

    /// Milliseconds since 1970 of the last success, 0 for none.
    pub fn last_success_ms(&self) -> u64 {
        self.last_success.load(Ordering::Relaxed)
    }

    /// Failed requests, whatever the reason.
    pub fn failures(&self) -> u64 {
        self.failure.iter().map(IntCounter::get).sum()
    }

    pub fn failed(&self, class: FailureClass) {
        self.failure[class as usize].inc();
        match class {
            FailureClass::Rejected | FailureClass::Backend => self.counts.failed(),
            // The client's own doing.
            FailureClass::Canceled | FailureClass::Other => {}
        }
    }
}

/// Register a metric and keep it.
fn add<M: Collector + Clone + 'static>(registry: &Registry, metric: M) -> prometheus::Result<M> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// Milliseconds since 1970.
pub fn unix_millis() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// Whole microseconds, as Triton's counters count.
pub fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
