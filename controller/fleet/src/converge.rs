//! One site's way to what it was told: a state machine. Events and time go in, effects come out, and
//! whoever performs them does so in their order.
//!
//! ```text
//!  message ─ verify ─▶ wanted ─▶ Fetching ─▶ Staging ─▶ commit ─▶ Activate ─▶ drain the old ─▶ stop
//!                        ▲          │ late      │ late     (kept before it is done)
//!                        └─ Waiting ◀───────────┘
//! ```
//!
//! Three things go on beside each other, each by comparing what is with what is to be: what is served
//! stays up (after a restart too, with no network at all), what is wanted is fetched and staged beside it,
//! and what is neither is drained and stopped, but only once the serving generation has the
//! traffic. Events that come twice or late change nothing, since nothing counts on their order.

mod check;
mod report;
mod runs;
mod site;
mod store;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wick_package::{Digest, PackageName};

use crate::model::Model;
use crate::names::{Generation, RolloutName};
use crate::wire::{KeyRing, Observed};
pub use check::Broken;
pub use site::Site;

/// What a site has, and how long it waits. Every state has one of these deadlines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// For models, of which old and new are there at once.
    pub memory: u64,
    /// For images.
    pub disk: u64,
    /// For all bytes of a generation.
    pub fetch: Duration,
    /// From start to ready.
    pub stage: Duration,
    /// Until the traffic goes to another generation. Then it is asked for again.
    pub activate: Duration,
    /// For requests of the old version. Then it is stopped.
    pub drain: Duration,
    /// After the first failure; doubled with each, up to `retry_most`.
    pub retry: Duration,
    pub retry_most: Duration,
}

/// A version of a model that runs, or is to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    pub name: PackageName,
    pub digest: Digest,
}

/// All models of a generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    pub generation: Generation,
    pub models: Vec<Model>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutName>,
}

/// What must survive a loss of power. It is written whole, before any effect that comes after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    pub ring: KeyRing,
    /// How often the site started; reports are numbered by it.
    pub boots: u64,
    /// What has the traffic, or is about to: it was ready when it was written here.
    pub serving: Option<Spec>,
    /// The newest that was accepted.
    pub wanted: Option<Spec>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The agent has started: what runs already, and which bytes are whole on the disk. It comes
    /// first, and again after every restart.
    Booted {
        running: Vec<Model>,
        stored: Vec<(Digest, u64)>,
    },
    Message {
        topic: String,
        bytes: Vec<u8>,
    },
    Fetched {
        digest: Digest,
    },
    /// A fetch ended without all its bytes, cancelled ones too.
    FetchFailed {
        digest: Digest,
        fault: Fault,
    },
    Evicted {
        digest: Digest,
    },
    Ready {
        version: Version,
    },
    /// It ended by itself.
    Died {
        version: Version,
    },
    Activated {
        generation: Generation,
    },
    Drained {
        version: Version,
    },
    Stopped {
        version: Version,
    },
    /// Time has passed: see [`Site::due`].
    Tick,
}

/// Why bytes did not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Unreachable,
    /// They were not those of the digest.
    WrongBytes,
    DiskFull,
    Cancelled,
}

/// What is to be done. All of them may be done twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Durably, before what follows.
    Keep(Box<Kept>),
    Fetch(Model),
    Cancel(Digest),
    Evict(Digest),
    Start(Model),
    /// At once; what must finish was drained.
    Stop(Version),
    /// Give all traffic to these versions, at once.
    Activate {
        generation: Generation,
        versions: Vec<Version>,
    },
    /// No new requests; tell when the last is answered.
    Drain(Version),
    Report {
        generation: Generation,
        observed: Box<Observed>,
    },
}

/// Why a state lasts, or why a try was given up. The code is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    NoMemory,
    NoDisk,
    Unreachable,
    WrongBytes,
    DiskFull,
    /// Bytes still come, and the deadline is over.
    FetchLate,
    NotReady,
    Died,
    ActivateLate,
}

// === impl Settings ===

impl Settings {
    /// Deadlines for a site with this much memory and disk.
    pub const fn new(memory: u64, disk: u64) -> Self {
        Self {
            memory,
            disk,
            fetch: Duration::from_secs(6 * 3600),
            stage: Duration::from_secs(600),
            activate: Duration::from_secs(60),
            // Longer than a worker's own drain of 25 s.
            drain: Duration::from_secs(40),
            retry: Duration::from_secs(10),
            retry_most: Duration::from_secs(600),
        }
    }

    /// How long to wait after this many failures.
    fn backoff(&self, failures: u32) -> Duration {
        let doubled = self.retry.saturating_mul(1 << failures.saturating_sub(1).min(16));
        doubled.min(self.retry_most)
    }
}

// === impl Version ===

impl From<&Model> for Version {
    fn from(model: &Model) -> Self {
        Self { name: model.name.clone(), digest: model.digest }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.digest.short())
    }
}

// === impl Spec ===

impl Spec {
    pub fn has(&self, version: &Version) -> bool {
        self.models.iter().any(|m| m.digest == version.digest && m.name == version.name)
    }

    pub fn has_bytes(&self, digest: Digest) -> bool {
        self.models.iter().any(|model| model.digest == digest)
    }
}

// === impl Kept ===

impl Kept {
    /// A site that was enrolled with these keys, and told nothing yet.
    pub fn enrolled(ring: KeyRing) -> Self {
        Self { ring, boots: 0, serving: None, wanted: None }
    }
}

// === impl Reason ===

impl Reason {
    pub fn code(self) -> &'static str {
        match self {
            Self::NoMemory => "no-memory",
            Self::NoDisk => "no-disk",
            Self::Unreachable => "unreachable",
            Self::WrongBytes => "wrong-bytes",
            Self::DiskFull => "disk-full",
            Self::FetchLate => "fetch-late",
            Self::NotReady => "not-ready",
            Self::Died => "died",
            Self::ActivateLate => "activate-late",
        }
    }
}
