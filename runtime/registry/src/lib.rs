//! Packages travel: pull, push and copy images of any OCI registry, or in one file where there is
//! none, and keep them in a store that all commands of a machine share.
//!
//! ```text
//!  registry ──GET──▶ download ──bytes──▶ sink: hash and write ──fsync, rename──▶ store
//!     ▲                 ▲ resumed at the byte, retried within a limit               │
//!     │                 └─ one download for all who want the blob                   │
//!     └──PUT── upload ◀──────────────── layout ◀────────────────────────────────────┘
//! ```
//!
//! What moves is bounded: documents by length, layers by what their descriptors say, downloads by
//! number, memory by a few chunks for each. Every byte is hashed on its way to the disk. Knows
//! nothing of Kubernetes and MQTT, and nothing of what a signature says: it carries them.

mod api;
mod beside;
mod bundle;
mod challenge;
mod client;
mod content;
mod copy;
mod cosign;
mod credentials;
mod download;
mod error;
mod images;
mod inspect;
mod load;
mod progress;
mod pull;
mod push;
mod rate;
mod referrers;
mod retry;
mod settings;
mod store;
mod tokens;
mod transport;

pub use beside::Beside;
pub use bundle::{Bundle, BundleError, Bundled};
pub use client::Registry;
pub use copy::Copied;
pub use error::RegistryError;
pub use inspect::Inspected;
pub use load::{Incoming, LoadError, Loaded};
pub use progress::Progress;
pub use pull::Pulled;
pub use push::Pushed;
pub use referrers::Artifact;
pub use retry::Backoff;
pub use settings::{Credentials, PlainHttp, Settings, SettingsError};
pub use store::gc;
pub use store::{Damaged, Fault, Lease, Report, Store, StoreError, StoredImage, Swept, Work};
