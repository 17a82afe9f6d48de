//! Signatures and policy through the public seam.

mod cosign;
mod decide;
mod envelope;
mod keys;
mod policy;
mod properties;
mod store;
mod support;
