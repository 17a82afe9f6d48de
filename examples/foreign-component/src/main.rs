//! A component that knows nothing of wick: plain `wit-bindgen` on the official WIT of
//! `wasi:nn`. It asks the graph `cls` which way up two pictures are.
//!
//! Only for wasm32-wasip2; natively there is no `wasi:nn` to call.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command answers by printing")]

#[cfg(target_family = "wasm")]
mod guest;

use std::process::ExitCode;

#[cfg(target_family = "wasm")]
fn main() -> ExitCode {
    match guest::run() {
        Ok(()) => ExitCode::SUCCESS,
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
