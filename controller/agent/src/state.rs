//! What others may know of an agent while it runs: the loop and the link write it, the control port
//! reads it.

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use wick_fleet::wire::Observed;
use wick_fleet::{Generation, SiteName};

/// How the connection to the broker is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LinkState {
    pub connected: bool,
    /// Connections so far.
    pub sessions: u64,
    /// Why there is no connection, or why the last one ended.
    pub error: Option<String>,
}

/// All of it at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub site: SiteName,
    pub ready: bool,
    pub link: LinkState,
    /// What has the traffic.
    pub generation: Generation,
    pub observed: Option<Observed>,
    /// In seconds since 1970.
    pub certificate_ends: u64,
    /// Why the certificate is not renewed though it is time.
    pub renewal: Option<String>,
    /// Why what is to be kept can't be written.
    pub disk: Option<String>,
}

/// Shared by those who know something.
#[derive(Debug)]
pub struct Shared(Mutex<Snapshot>);

// === impl Shared ===

impl Shared {
    pub fn new(site: SiteName, certificate_ends: u64) -> Self {
        Self(Mutex::new(Snapshot {
            site,
            ready: false,
            link: LinkState::default(),
            generation: Generation::default(),
            observed: None,
            certificate_ends,
            renewal: None,
            disk: None,
        }))
    }

    pub fn read(&self) -> Snapshot {
        self.0.lock().clone()
    }

    pub fn change(&self, change: impl FnOnce(&mut Snapshot)) {
        change(&mut self.0.lock());
    }
}
