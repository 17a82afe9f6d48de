//! The public seam of wick-nn, on real backends and real models.

mod bad_files;
mod batching;
mod choice;
mod common;
mod conformance;
mod real_models;
mod resting;
mod saved_graphs;
