//! What a shim tells a worker to do, and how the worker locks itself down before it does it.
//!
//! ```text
//!  shim ── clone3 into cgroup and namespaces ──▶ wick worker   (one thread, trusted code only)
//!    │ ───────────── Order ────────────────────────▶ │
//!    │                                               │ load backend libraries
//!    │                                               │ lock down: mounts, pivot_root, user,
//!    │                                               │ capabilities, rlimits, seccomp
//!    │ ◀──────────── Report::Ready ───────────────── │
//!    │ ───────────── Go ───────────────────────────▶ │  (containerd's Start)
//!    │                                               │ threads, listener
//!    │ ◀──────────── Report::Started ─────────────── │
//!    │                                               │ open the package, load, serve
//! ```
//!
//! The shim links this crate for its types alone; the worker, which is the `wick` executable,
//! for both. Nothing here knows containerd, WebAssembly or inference.

mod apparmor;
mod cgroups;
pub mod channel;
mod devices;
mod error;
mod identity;
mod lockdown;
mod masks;
mod mounts;
pub mod order;
mod root;
mod seccomp;
mod signals;
mod sys;

pub use channel::{Channel, ChannelError};
pub use error::LockdownError;
pub use lockdown::{Driver, lock_down};
pub use mounts::{BACKENDS, CACHE, COMPONENTS, DRIVERS, IMAGE, OWN_FOLDER, is_volume};
pub use order::{Go, Order, Report};
pub use signals::{Signals, Woken};
pub use sys::{
    adopt, bound_heaps, close_inherited, return_large_blocks, return_program, set_variables,
    trim_heaps,
};
