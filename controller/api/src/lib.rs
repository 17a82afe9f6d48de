//! What users of a cluster write (`Model`), and those of a fleet (`Site`, `Rollout` of [`fleet`]), and what
//! they are told about it: types, schema, conditions and reasons.
//!
//! No I/O and no decisions: how a `Model` becomes pods is the operator's. What the schema and
//! its rules refuse in a cluster, [`check()`] refuses anywhere, with the same paths.

mod check;
mod crd;
pub mod fleet;
mod model;
mod placement;
mod reason;
mod rollout;
mod rules;
mod scale;
mod schema;
mod status;
mod text;

pub use check::{Mistake, check, parse};
pub use crd::{crd, fleet_crds};
pub use model::{
    ConfigKey, EnvVar, EnvVarSource, Model, ModelSpec, PackageSource, Prefetch, PrefetchPolicy,
    SecretKey, SecretName, Signature,
};
pub use placement::{
    DeviceClaim, Operator, Resources, Scheduling, SpreadConstraint, Toleration, WhenUnsatisfiable,
};
pub use reason::{ConditionType, Reason};
pub use rollout::{Gates, OnFailure, OnTooFewRequests, Promotion, Rollout, Step};
pub use scale::{Hold, HorizontalPodAutoscaler, Scale};
pub use status::{
    ActivatorStatus, Address, Condition, DrainingStatus, ModelStatus, RejectedStatus,
    ResolvedPackage, RevisionStatus, RolloutPhase, RolloutStatus, Status,
};
pub use text::{Percent, PercentError, Quantity, QuantityError, Span, SpanError};

/// The API group, which annotations and labels share.
pub const GROUP: &str = "wick.dev";
