//! The Open Inference server: models of [`wick_engine`] over REST and gRPC.
//!
//! ```text
//!  server ─▶ routes ─▶ infer ─▶ body, codec ─▶ call ─▶ turn, gate, cores ─▶ Model
//!                  ├─▶ grpc ─────────▶ codec ─▶ call
//!                  └─▶ forward ───────────────────────┘      ▲
//!                                            repository ─────┘ ◀── watch
//! ```
//!
//! One port speaks HTTP/1.1 and HTTP/2, plain or over TLS. [`codec`] is the protocol's
//! pure part, `Admission` decides which request of a model runs, `Shares` which model's,
//! `respond` is the one table of statuses. This crate knows nothing of containerd or Kubernetes.

mod admission;
mod auth;
mod awake;
mod body;
mod call;
pub mod codec;
mod compression;
mod cores;
mod eager;
mod edge;
mod extensions;
mod forward;
mod front;
mod gate;
pub mod grpc;
mod infer;
mod io;
mod metadata;
mod metrics;
pub mod mqtt;
mod openapi;
mod page;
mod peers;
mod reload;
mod repository;
mod respond;
mod routes;
mod server;
mod settings;
mod shares;
mod stall;
mod tls;
mod trace;
mod traffic;
mod turn;
mod watch;

pub use admission::Priority;
pub use auth::{Auth, Grant};
pub use reload::ReloadError;
pub use repository::{
    CycleSettings, Live, ModelStatus, Opener, PolicyError, Repository, RepositoryError,
    RepositorySettings, Source, Staged, State, VersionPolicy,
};
pub use respond::Failure;
pub use routes::router;
pub use server::{BindError, Bound, Drained, Server};
pub use settings::ServeSettings;
pub use tls::{Tls, TlsFiles};
pub use traffic::Traffic;
pub use watch::{Watch, WatchError};
