//! The hub of a fleet: policies from git or a cluster, decisions by [`wick_fleet`], and what sites are to have over MQTT.
//!
//! ```text
//!  git, cluster ─▶ policy ────┐
//!  sites ─▶ link ──▶ heard ──┼─▶ hub: plan, lint ─▶ store ─▶ link ─▶ sites
//!  people ─▶ serve ─ orders ─┘
//! ```
//!
//! What is decided is on the disk before anybody hears of it, and on every start all of it is said again: the hub
//! may end at any instant. No decision about sites is made here.

mod admit;
mod ask;
mod authority;
mod cluster;
mod git;
mod heard;
mod hub;
mod link;
mod member;
mod mosquitto;
mod policy;
mod record;
mod serve;
mod shared;
mod show;
mod source;
mod start;
mod store;
mod token;

pub use admit::ListError;
pub use authority::{Authority, AuthorityError, CA_FILE, HUB_FILES, LIST_FILE, SERVER_FILES};
pub use cluster::ClusterSettings;
pub use git::{GitError, GitSettings};
pub use link::{Broker, BrokerError, LinkError};
pub use mosquitto::{acl, config};
pub use policy::{File, Mistake};
pub use serve::ListenError;
pub use source::Source;
pub use start::{Hub, HubError, Settings, ca, init, make_token, renew};
pub use store::StoreError;
pub use token::Role;
