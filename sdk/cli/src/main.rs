//! `wick`: run, make, pack, call and measure model packages.
//!
//! This crate parses flags into the settings of the runtime's crates and prints what
//! they return. Each command is one file under `commands`.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command talks to people: results on standard output, the rest beside it"
)]

mod args;
mod backends;
mod bench;
mod client;
mod commands;
mod containerd;
mod exit;
mod failure;
mod host;
mod input;
mod keys;
mod logging;
mod node;
mod output;
mod policy;
mod quantity;
mod random;
mod registries;
mod show;
mod signatures;
mod target;
mod templates;
mod tensor_json;
mod tolerance;
mod traces;
mod weights;
mod wire;

use std::process::ExitCode;

use clap::Parser as _;

use args::Cli;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return args::refuse(&error),
    };
    let format = cli.global.output;
    match commands::run(cli) {
        Ok(code) => code,
        Err(failure) => {
            failure.report(format);
            failure.exit().into()
        }
    }
}
