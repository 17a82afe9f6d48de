//! What is signed: a digest, and what it is said to be.

use crate::digest::Digest;
use crate::reference::Reference;

/// An image that somebody vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Of the image index, or of the manifest where there is no index.
    pub digest: Digest,
    /// The repository that it is signed for. A signature for one is none for another, unless a
    /// policy says so.
    pub image: Reference,
    /// The package's name and version, as its index says them: for people.
    pub package: Option<String>,
    pub version: Option<String>,
    /// When, by the signer's clock, as RFC 3339 writes it: for people. No decision rests on it.
    pub signed_at: Option<String>,
}
