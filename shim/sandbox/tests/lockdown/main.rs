//! The lockdown, as root, in namespaces of each test's own.

#![allow(clippy::print_stderr, reason = "a test that can't run says so")]

mod hostile;
mod identity;
mod mounts;
mod support;
