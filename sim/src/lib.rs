//! A fleet in one thread, on a clock of its own: the real planner, the real messages and the real sites,
//! with a hub, a broker, links, disks and registries that fail. Everything that happens by chance comes
//! from one seed, so a run can be told again step by step.
//!
//! ```text
//!   Hub ── plan, lint, seal ──▶ Broker ── lost, twice, late, old, forged ──▶ Machine ── Site
//!    ▲                                                                         │ effects
//!    └───────────────────────── observed ◀── sealed by the site ◀──────────────┘
//! ```
//!
//! After every event the promises of the site and of the machine that it runs on are checked. Then
//! faults stop, and everything has to come to rest with every site where the plan wants it.

mod broker;
mod hub;
mod machine;
mod perform;
mod world;

use wick_package::Digest;

pub use world::run;

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The first promise that was broken, and when.
    pub broken: Option<String>,
    /// Of everything that happened, in order.
    pub digest: Digest,
    /// The same as text, where it was asked for.
    pub trace: String,
    pub events: u64,
    /// How often sites came to another generation.
    pub activations: u64,
    pub refusals: u64,
    pub crashes: u64,
}
