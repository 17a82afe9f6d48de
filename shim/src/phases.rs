//! How long the parts of a start took, for one line of the log and for the benchmark's table.

use std::path::Path;
use std::time::Instant;

use wick_sandbox::order::Phase;

/// Where a bundle keeps them.
pub const FILE: &str = "wick-phases.json";

/// A start's phases so far.
#[derive(Debug)]
pub struct Phases {
    list: Vec<Phase>,
    begun: Instant,
}

// === impl Phases ===

impl Phases {
    pub fn begin() -> Self {
        Self { list: Vec::new(), begun: Instant::now() }
    }

    /// What was done since the last one.
    pub fn done(&mut self, name: &str) {
        self.list.push(Phase::since(name, self.begun));
        self.begun = Instant::now();
    }

    /// Time that nobody of ours spent.
    pub fn restart(&mut self) {
        self.begun = Instant::now();
    }

    /// The other side's, which lie within the last of ours.
    pub fn add(&mut self, side: &str, phases: Vec<Phase>) {
        let named = |phase: Phase| Phase { name: format!("{side}.{}", phase.name), ..phase };
        self.list.extend(phases.into_iter().map(named));
    }

    pub fn line(&self) -> String {
        let words = self.list.iter().map(|p| format!("{}={}us", p.name, p.micros));
        words.collect::<Vec<_>>().join(" ")
    }

    /// A span for each, with times of its own since it is over.
    pub fn trace(&self, container: &str) {
        for phase in &self.list {
            let (phase, at, end) = (&phase.name, phase.at, phase.end());
            let _over = tracing::debug_span!("start", container, phase, at, end);
        }
    }

    /// Best effort: a start does not fail for its figures.
    pub fn save(&self, bundle: &Path) {
        if let Ok(text) = serde_json::to_vec(&self.list) {
            let _ = std::fs::write(bundle.join(FILE), text);
        }
    }
}
