//! The real executable, on packages that are made here.

mod activator;
mod batch;
mod bench;
mod bundles;
mod calls;
mod compile;
mod examples;
mod fleet;
mod images;
mod import;
mod import_real;
mod memory;
mod messages;
mod new;
mod operator;
mod packages;
mod pod;
mod real;
mod security;
mod serving;
mod signing;
mod support;
mod worker;
