//! The fleet's decisions: what hub and sites say to each other ([`wire`]), who gets which models when
//! ([`plan`]), and how one site gets there ([`converge`]).
//!
//! ```text
//!  policy, inventory, observations ─▶ plan ─▶ Desired ──sealed──▶ broker ──▶ converge ─▶ effects
//!            ▲                                                                  │
//!            └────────────────── Observed ◀──────sealed────────────────────────┘
//! ```
//!
//! Everything here takes events and time and returns data: there is no client of MQTT, no
//! clock, no task, no file.

pub mod converge;
pub mod enrol;
mod model;
mod names;
pub mod plan;
mod time;
pub mod wire;

pub use model::{Model, ModelsError, check_models, disk_of, memory_of};
pub use names::{Generation, MAX_NAME, NameError, RolloutName, SiteName};
pub use time::Moment;
