//! What tests in a real Kubernetes cluster are written with: a cluster to start or to use,
//! kubectl with waits that tell what they waited for, images made from a file or a folder,
//! and a client that pushes them to a registry.
//!
//! How a cluster is started is not known here: that is `cargo xtask cluster`, which this
//! calls. A cluster that exists already, of whatever kind, is used when
//! `WICK_E2E_KUBECONFIG` names it.

pub mod caller;
pub mod chart;
pub mod cluster;
pub mod distribution;
pub mod filetype;
pub mod http;
pub mod image;
pub mod kubectl;
pub mod package;
pub mod registry;
pub mod stage;
pub mod wait;

/// Tell a figure to whoever reads the run's output.
pub fn say(what: &str) {
    use std::io::Write as _;
    // Nobody may be reading.
    writeln!(std::io::stderr(), "{what}").ok();
}
