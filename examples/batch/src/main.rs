//! The job as a command: its folders are the package's mounts, the model is the graph
//! `magika` of `wasi:nn`, made with plain `wit-bindgen` from the official WIT.
//!
//! Only for wasm32-wasip2; natively there is no `wasi:nn` to call.

#![allow(clippy::print_stderr, reason = "a command says on standard error why it ends")]

#[cfg(target_family = "wasm")]
mod guest;

use std::process::ExitCode;

#[cfg(target_family = "wasm")]
fn main() -> ExitCode {
    match guest::run() {
        Ok(tally) if tally.errors == 0 => ExitCode::SUCCESS,
        // Each of them has its line in the results.
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(not(target_family = "wasm"))]
fn main() -> ExitCode {
    eprintln!("build this for wasm32-wasip2");
    ExitCode::FAILURE
}
