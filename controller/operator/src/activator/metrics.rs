//! What an activator counts, in Prometheus' text.

use std::fmt::Write as _;
use std::sync::Arc;

use super::cold::{BOUNDS, Histogram, PHASES};
use super::model::Model;
use super::sent::Code;

/// All metrics of all Models.
pub fn text(models: &[Arc<Model>]) -> String {
    let mut out = String::new();
    gauges(&mut out, models);
    head(&mut out, "wick_activator_answers_total", "counter", "Answers of pods");
    for model in models {
        for (revision, codes) in model.codes() {
            for (code, count) in codes {
                let code = match code {
                    Code::Http(status) => status.to_string(),
                    Code::Grpc(status) => format!("grpc-{status}"),
                };
                let labels = format!("{},revision=\"{revision}\",code=\"{code}\"", of(model));
                line(&mut out, "wick_activator_answers_total", &labels, count);
            }
        }
    }
    head(&mut out, "wick_activator_refused_total", "counter", "Requests that no pod answered");
    for model in models {
        for (reason, count) in model.refused() {
            let labels = format!("{},reason=\"{reason}\"", of(model));
            line(&mut out, "wick_activator_refused_total", &labels, count);
        }
    }
    let name = "wick_activator_hold_seconds";
    head(&mut out, name, "histogram", "How long requests that a pod took were held");
    for model in models {
        histogram(&mut out, name, &of(model), &model.cold.held);
    }
    let name = "wick_activator_cold_start_seconds";
    head(&mut out, name, "histogram", "Cold starts: until a pod has an address, is ready, answers");
    for model in models {
        for (phase, times) in PHASES.iter().zip(&model.cold.phases) {
            histogram(&mut out, name, &format!("{},phase=\"{phase}\"", of(model)), times);
        }
    }
    out
}

fn gauges(out: &mut String, models: &[Arc<Model>]) {
    let all: Vec<_> = models.iter().map(|model| (of(model), model.numbers())).collect();
    head(out, "wick_activator_held", "gauge", "Requests that wait for a pod");
    for (labels, numbers) in &all {
        line(out, "wick_activator_held", labels, numbers.held.into());
    }
    head(out, "wick_activator_sent", "gauge", "Requests at pods");
    for (labels, numbers) in &all {
        line(out, "wick_activator_sent", labels, numbers.sent.into());
    }
    head(out, "wick_activator_requests_total", "counter", "Requests that came");
    for (labels, numbers) in &all {
        line(out, "wick_activator_requests_total", labels, numbers.requests_total);
    }
}

/// Names in Kubernetes have no character that would need an escape.
fn of(model: &Model) -> String {
    format!("namespace=\"{}\",model=\"{}\"", model.name.namespace, model.name.name)
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(out: &mut String, name: &str, labels: &str, value: u64) {
    let _ = writeln!(out, "{name}{{{labels}}} {value}");
}

fn histogram(out: &mut String, name: &str, labels: &str, times: &Histogram) {
    let (counts, sum) = times.read();
    let count = counts[BOUNDS.len()];
    // Most Models have never been cold, and there may be thousands.
    if count == 0 {
        return;
    }
    for (bound, faster) in BOUNDS.iter().zip(counts) {
        line(out, &format!("{name}_bucket"), &format!("{labels},le=\"{bound}\""), faster);
    }
    line(out, &format!("{name}_bucket"), &format!("{labels},le=\"+Inf\""), count);
    let _ = writeln!(out, "{name}_sum{{{labels}}} {sum}");
    line(out, &format!("{name}_count"), labels, count);
}
