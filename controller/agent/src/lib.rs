//! The agent: one site of a fleet. What it does is decided by `wick_fleet::converge`; this performs it.
//!
//! ```text
//!  broker ──link──▶ messages ─┐                    ┌─▶ keep: the site's folder
//!                             ├─▶ Site ─▶ effects ─┼─▶ target: Local | Kubernetes
//!  target ────────▶ events ───┘                    └─▶ outbox ──link──▶ broker
//! ```
//!
//! What is served needs none of the others: without broker, hub and registry it is served on, after a
//! restart too.

mod certificate;
mod control;
mod enrol;
mod keep;
mod link;
mod outbox;
mod perform;
mod state;
pub mod target;
mod tls;

pub use certificate::Renewal;
pub use control::ControlError;
pub use enrol::{EnrolError, EnrolSettings, enrol, token_hash};
pub use keep::{Home, KeepError, SiteFile};
pub use perform::{Agent, AgentError, AgentSettings};
pub use state::{LinkState, Snapshot};
