//! Sources of every kind become packages, or are refused with what to do.

mod artifacts;
mod downloads;
mod folders;
mod registries;
mod support;
