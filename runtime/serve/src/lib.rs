//! The Open Inference server: models of [`wick_engine`] over REST and gRPC.
//!
//! ```text
//!  server ─▶ routes ─▶ infer ─▶ body, codec ─▶ call ─▶ turn, gate ─▶ wick_engine::Model
//!                  ├─▶ grpc ─────────▶ codec ─▶ call
//!                  └─▶ forward ───────────────────────┘      ▲
//!                                            repository ─────┘ ◀── watch
//! ```
//!
//! One port speaks HTTP/1.1 and HTTP/2 without TLS. [`codec`] is the protocol's
//! pure part, `Admission` decides who runs, `respond` is the
//! one table of statuses. This crate knows nothing of containerd or Kubernetes.

mod admission;
mod body;
mod call;
pub mod codec;
mod extensions;
mod forward;
mod gate;
pub mod grpc;
mod infer;
mod io;
mod metadata;
mod metrics;
mod repository;
mod respond;
mod routes;
mod server;
mod settings;
mod turn;
mod watch;

pub use repository::{ModelStatus, Repository, RepositoryError, RepositorySettings, Source, State};
pub use respond::Failure;
pub use routes::router;
pub use server::{BindError, Bound, Drained, Server};
pub use settings::ServeSettings;
pub use watch::{Watch, WatchError};
