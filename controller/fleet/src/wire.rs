//! What hub and sites say to each other over a broker: topics, messages, and the seal that each
//! message has.
//!
//! ```text
//!  wick/v1/<site>/desired     hub → site, retained    what the site is to have
//!  wick/v1/<site>/observed    site → hub, retained    what it has, and where it is
//!  wick/v1/<site>/presence    site → hub, last will   whether it is connected
//!  wick/v1/<site>/telemetry   site → hub              how requests went
//! ```
//!
//! A message is believed for its seal, never for the topic that it came by: the topic, the site, the
//! generation and the key are part of what is signed. What is not understood is refused by a
//! reason with a stable code, and the reason is reported.

mod keys;
mod message;
mod refusal;
mod seal;
mod topic;

pub use keys::{KeyChange, KeyRing, MAX_CHANGES, MAX_KEYS};
pub use message::{Desired, Observed, Presence, Refused, Served, State, Telemetry};
pub use refusal::Refusal;
pub use seal::{Body, MAX_MESSAGE, Opened, VERSION, open, seal};
pub use topic::{Channel, Topic};
