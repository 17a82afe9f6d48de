//! Signatures of packages, and who must have signed: keys, what is signed, how it travels, and
//! the policy that decides.
//!
//! ```text
//!  index digest ─ statement ─ DSSE ─ bundle ──┐           policy (keys, rules)
//!     (cosign's payload ─ annotation) ────────┤                 │
//!  documents: index, manifests ── files ──────┴─▶ Envelope ─▶ decide ─▶ allowed, or why not
//! ```
//!
//! What is signed is the digest of the image index, which holds for every byte of the image. An
//! [`Envelope`] also carries the few documents between that digest and the digests of files, so
//! that whoever has only unpacked files can check them. Everything here is pure but
//! [`NodeStore`] and [`Gate`], which read and write small files. Nothing is fetched.

mod attached;
mod bundle;
mod contents;
mod cosign;
mod decide;
mod dsse;
mod embed;
mod envelope;
mod error;
mod gate;
mod key;
mod policy;
mod private_key;
mod referrer;
mod signed;
mod statement;
mod store;
mod subject;
mod trusted;

pub use attached::{Attached, holds_signatures};
pub use bundle::BUNDLE_TYPE;
pub use contents::{ContentsError, ListedFiles};
pub use cosign::{COSIGN_TYPE, CosignLayer, cosign_signatures};
pub use decide::{Decision, Refusal, Request};
pub use dsse::pae;
pub use envelope::{ENVELOPE_TYPE, Envelope, MAX_ENVELOPE};
pub use error::SignatureError;
pub use gate::{Admitted, Gate, envelope_beside, read_envelope};
pub use key::{KeyId, PublicKey};
pub use policy::{MAX_POLICY, NODE_POLICY, Otherwise, Pattern, Policy, Rule, TrustedKey};
pub use private_key::{Encryption, PrivateKey};
pub use referrer::{Listed, Referrer, cosign_tag, fallback_index, fallback_tag, referrers_of};
pub use signed::{Claim, Signature};
pub use store::{NODE_STORE, NodeStore, StoreError, Stored};
pub use subject::Subject;
pub use trusted::{TrustError, is_absent, read_trusted};
