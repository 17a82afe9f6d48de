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
        let micros = u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.list.push(Phase { name: name.to_owned(), micros });
        self.begun = Instant::now();
    }

    /// Time that nobody of ours spent.
    pub fn restart(&mut self) {
        self.begun = Instant::now();
    }

    /// The other side's, which lie within the last of ours.
    pub fn add(&mut self, side: &str, phases: Vec<Phase>) {
        let named = |p: Phase| Phase { name: format!("{side}.{}", p.name), micros: p.micros };
        self.list.extend(phases.into_iter().map(named));
    }

    pub fn line(&self) -> String {
        let words = self.list.iter().map(|p| format!("{}={}us", p.name, p.micros));
        words.collect::<Vec<_>>().join(" ")
    }

    /// Best effort: a start does not fail for its figures.
    pub fn save(&self, bundle: &Path) {
        if let Ok(text) = serde_json::to_vec(&self.list) {
            let _ = std::fs::write(bundle.join(FILE), text);
        }
    }
}
