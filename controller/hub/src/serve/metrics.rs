//! Numbers for Prometheus. None is by site: a fleet has too many.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::response::Response;
use wick_fleet::plan::Phase;

use super::{Api, raw};
use crate::show::Totals;

const PHASES: [Phase; 5] =
    [Phase::Running, Phase::Paused, Phase::Aborted, Phase::RolledBack, Phase::Finished];

pub(super) async fn metrics(State(api): State<Api>) -> Response {
    let state = api.shared.state.read();
    let counts = &api.shared.counts;
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, rows: &[(String, u64)]| {
        // Into a text it never fails.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in rows {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    };
    let one = |value: u64| vec![(String::new(), value)];
    let totals = Totals::of(&state);
    let sites = [
        ("enrolled", totals.enrolled),
        ("online", totals.online),
        ("converged", totals.converged),
        ("failed", totals.failed),
    ];
    let labelled =
        |label: &str, name: &str, value: usize| (format!("{{{label}=\"{name}\"}}"), value as u64);
    let sites = sites.map(|(name, value)| labelled("state", name, value));
    family("wick_hub_sites", "gauge", "Sites of the fleet.", &sites);
    let phases = PHASES.map(|phase| {
        let count = state.plan.rollouts.values().filter(|rollout| rollout.phase == phase).count();
        labelled("phase", &phase.to_string(), count)
    });
    family("wick_hub_rollouts", "gauge", "Rollouts of the policy.", &phases);
    let refused: Vec<_> = state
        .heard
        .refused()
        .iter()
        .map(|(code, count)| (format!("{{code=\"{code}\"}}"), *count))
        .collect();
    family("wick_hub_messages_refused", "counter", "Messages that were not believed.", &refused);
    family(
        "wick_hub_messages_heard",
        "counter",
        "Messages of sites.",
        &one(counts.heard.load(Ordering::Relaxed)),
    );
    let published = counts.published.load(Ordering::Relaxed);
    family("wick_hub_messages_published", "counter", "Messages to sites.", &one(published));
    family(
        "wick_hub_plans",
        "counter",
        "Plans that were made.",
        &one(counts.plans.load(Ordering::Relaxed)),
    );
    family(
        "wick_hub_connected",
        "gauge",
        "Whether the broker is there.",
        &one(state.link.connected.into()),
    );
    let good = u64::from(state.source.error.is_none());
    family("wick_hub_policy_good", "gauge", "Whether the newest policy is in force.", &one(good));
    family(
        "wick_hub_problems",
        "gauge",
        "Why the last plan is not published.",
        &one(state.problems.len() as u64),
    );
    raw("text/plain; version=0.0.4", text)
}
