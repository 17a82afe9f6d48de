//! Decides what a `Model` needs in a cluster, as pure functions and state machines that take time
//! as an argument:
//!
//! ```text
//!  Model ──▶ revision ──▶ desired ──▶ objects        what there is
//!            autoscale ──▶ how many pods              and why
//!            rollout   ──▶ who gets which share
//!            path      ──▶ in which order the EndpointSlice and the pods change
//! ```
//!
//! No I/O, no clock, no client: what is read from a cluster comes in as values, what must be
//! done goes out as values.

pub mod activator;
pub mod autoscale;
pub mod compare;
pub mod desired;
pub mod path;
pub mod revision;
pub mod rollout;
pub mod shell;
pub mod signature;
pub mod time;
pub mod turn;
