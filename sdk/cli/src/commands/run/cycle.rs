//! Versions and memory of models: flags become [`CycleSettings`].

use std::time::Duration;

use wick_serve::{CycleSettings, VersionPolicy};

use crate::quantity;

/// Flags about when models are loaded.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Life cycle")]
pub struct CycleArgs {
    /// Versions of a model to load: latest, latest:N, all, or a list as in 1.0.0,1.2.0
    #[arg(long, value_name = "POLICY", default_value_t)]
    versions: VersionPolicy,
    /// Time without a request after which a model leaves memory until the next one, whatever
    /// its package says; 0s: never
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    idle_graph: Option<Duration>,
    /// Most memory of all loaded models; the least recently used leave it first
    #[arg(long, value_name = "SIZE", value_parser = quantity::size)]
    max_loaded_memory: Option<u64>,
    /// Most memory of all loaded models on one GPU or NPU; the least recently used leave it first
    #[arg(long, value_name = "SIZE", value_parser = quantity::size)]
    max_device_memory: Option<u64>,
}

// === impl CycleArgs ===

impl CycleArgs {
    pub fn settings(&self) -> CycleSettings {
        CycleSettings {
            versions: self.versions.clone(),
            idle_graph: self.idle_graph,
            max_loaded_memory: self.max_loaded_memory,
            max_device_memory: self.max_device_memory,
            give_back: Some(wick_sandbox::trim_heaps),
            ..CycleSettings::default()
        }
    }
}
