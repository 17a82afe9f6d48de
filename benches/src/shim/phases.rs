//! Where the time of a start goes, by phase, as the shim and its worker report it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::stats::median;

/// Where the shim keeps them in a bundle.
const FILE: &str = "wick-phases.json";

/// Phases of many starts, in the order of the first one.
#[derive(Default)]
pub struct Table {
    order: Vec<String>,
    micros: BTreeMap<String, Vec<f64>>,
}

#[derive(Deserialize)]
struct Phase {
    name: String,
    micros: u64,
}

// === impl Table ===

impl Table {
    /// Add the phases of a bundle, if its shim has left any.
    pub fn add(&mut self, peer: &str, bundle: &Path) {
        let Ok(text) = std::fs::read(bundle.join(FILE)) else { return };
        let phases: Vec<Phase> = serde_json::from_slice(&text).unwrap_or_default();
        for phase in phases {
            let name = format!("{peer}.{}", phase.name);
            if !self.micros.contains_key(&name) {
                self.order.push(name.clone());
            }
            self.micros.entry(name).or_default().push(phase.micros as f64);
        }
    }

    /// Print the medians to standard error.
    pub fn print(&self) {
        for name in &self.order {
            eprintln!("  {name:<32} {:>9.3} ms", median(&self.micros[name]) / 1000.0);
        }
    }
}
