//! From results to bars. Each bar is its worst case, so that no case hides behind another.

use std::collections::BTreeMap;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::bar;
use crate::stats::round;

use super::lineup::{PYTHON, TRITON, WICK};
use super::ort::Turns;
use super::question::Protocol;
use super::rounds::{Case, Figures, Results, detail};

type Servers = BTreeMap<&'static str, Figures>;

pub fn tiny(results: &Results, about: &Value) -> anyhow::Result<()> {
    let detail = json!({"machine": about, "cases": detail(results)});
    let ratio = |name, value: f64| bar::report(name, value, "ratio", detail.clone());
    ratio("tiny-vs-python", least(results, |servers| over(servers, &PYTHON))?);
    ratio("tiny-vs-triton", least(results, |servers| over(servers, &[TRITON]))?);
    ratio("tiny-p99-vs-best", most(results, |_, servers| p99_over_best(servers))?);
    let cpu = |_, servers: &Servers| Some(servers.get(WICK)?.cpu_ms / servers.get(TRITON)?.cpu_ms);
    ratio("tiny-cpu-vs-triton", most(results, cpu)?);
    Ok(())
}

pub fn large(results: &Results, floor: &Turns, about: &Value) -> anyhow::Result<()> {
    // No server that runs one inference at a time on a core makes more of it.
    let bare = |case: &Case, servers: &Servers| {
        Some(floor.per_second(case.concurrency) / best(servers, &PYTHON)?)
    };
    let bare = results.iter().filter_map(|(case, servers)| bare(case, servers));
    let detail = json!({
        "machine": about, "files": floor.files, "cases": detail(results), "bare_onnxruntime": floor.detail(),
        "bare_onnxruntime_vs_python": bare.reduce(f64::min).map(round),
    });
    let ratio = |name, value: f64| bar::report(name, value, "ratio", detail.clone());
    ratio("large-vs-python", least(results, |servers| over(servers, &PYTHON))?);
    ratio("large-vs-triton", least(results, |servers| over(servers, &[TRITON]))?);
    let cpu = |case: Case, servers: &Servers| {
        Some(servers.get(WICK)?.cpu_ms / floor.cpu_ms(case.concurrency))
    };
    ratio("large-cpu-vs-ort", most(results, cpu)?);
    let grpc = Case { protocol: Protocol::Grpc, concurrency: 16 };
    let wick = results.get(&grpc).and_then(|servers| servers.get(WICK)).context("no gRPC case")?;
    ratio("grpc-vs-ort", wick.per_second / floor.best_per_second());
    Ok(())
}

pub fn json(results: &Results, about: &Value) -> anyhow::Result<()> {
    let peers = [PYTHON[0], PYTHON[1], TRITON];
    let value = least(results, |servers| over(servers, &peers))?;
    let detail = json!({"machine": about, "cases": detail(results)});
    bar::report("json-vs-best", value, "ratio", detail);
    Ok(())
}

/// wick's throughput over the best of some others'.
fn over(servers: &Servers, others: &[&str]) -> Option<f64> {
    Some(servers.get(WICK)?.per_second / best(servers, others)?)
}

/// Requests a second of the best of some servers.
fn best(servers: &Servers, names: &[&str]) -> Option<f64> {
    names.iter().filter_map(|name| Some(servers.get(name)?.per_second)).reduce(f64::max)
}

fn p99_over_best(servers: &Servers) -> Option<f64> {
    let peers = [PYTHON[0], PYTHON[1], TRITON];
    let times = peers.iter().filter_map(|name| Some(servers.get(name)?.p99_ms));
    Some(servers.get(WICK)?.p99_ms / times.reduce(f64::min)?)
}

fn least(results: &Results, value: impl Fn(&Servers) -> Option<f64>) -> anyhow::Result<f64> {
    results.values().filter_map(value).reduce(f64::min).context("no case was measured")
}

fn most(results: &Results, value: impl Fn(Case, &Servers) -> Option<f64>) -> anyhow::Result<f64> {
    let values = results.iter().filter_map(|(case, servers)| value(*case, servers));
    values.reduce(f64::max).context("no case was measured")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(per_second: f64, p99_ms: f64) -> Figures {
        Figures { per_second, p50_ms: 1.0, p99_ms, cpu_ms: 1.0 }
    }

    fn results() -> Results {
        let case = |concurrency| Case { protocol: Protocol::Json, concurrency };
        let peers = [(PYTHON[0], figures(10.0, 9.0)), (PYTHON[1], figures(20.0, 4.0))];
        let with = |wick| peers.into_iter().chain([(WICK, wick)]).collect();
        Results::from([(case(1), with(figures(100.0, 1.0))), (case(4), with(figures(60.0, 2.0)))])
    }

    #[test]
    fn a_bar_takes_the_best_peer_of_the_worst_case() {
        let value = least(&results(), |servers| over(servers, &PYTHON));
        assert_eq!(value.ok(), Some(3.0));
        let value = most(&results(), |_, servers| p99_over_best(servers));
        assert_eq!(value.ok(), Some(0.5));
    }

    #[test]
    fn a_peer_that_no_case_has_is_an_error_and_no_bar() {
        assert!(least(&results(), |servers| over(servers, &[TRITON])).is_err());
    }
}
