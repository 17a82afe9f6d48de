//! The real executable, on packages that are made here.

mod bench;
mod calls;
mod examples;
mod messages;
mod new;
mod packages;
mod serving;
mod support;
