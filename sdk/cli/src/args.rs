//! The command line: what can be typed, and what is said of a mistake in it.

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};

use crate::commands::{
    activator, agent, backend, bench, bundle, check, completions, copy, devices, fleet, hub,
    images, import, infer, inspect, key, list, load, new, operator, pack, pull, push, rollout, run,
    shim, sign, token, verify, verify_device, worker,
};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::logging::LogFormat;
use crate::output::{self, Format};

/// Run machine-learning models that are packaged with their code as WebAssembly.
#[derive(Debug, Parser)]
#[command(
    name = "wick",
    version,
    about,
    after_long_help = Exit::table(),
    after_help = "Exit codes and more: wick --help",
    disable_help_subcommand = false,
    max_term_width = 100,
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub global: Global,
}

/// Flags of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub struct Global {
    /// How results are printed
    #[arg(long, global = true, value_enum, default_value = "human", value_name = "FORMAT")]
    pub output: Format,
    /// How log lines look, on stderr
    #[arg(long, global = true, value_enum, default_value = "human", value_name = "FORMAT")]
    pub log: LogFormat,
    /// Log filter, such as `debug` or `wick_nn=trace`; RUST_LOG has the last word
    #[arg(long, global = true, value_name = "FILTER")]
    pub log_level: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Run(Box<run::RunArgs>),
    New(new::NewArgs),
    Import(import::ImportArgs),
    Check(check::CheckArgs),
    Inspect(inspect::InspectArgs),
    Pack(pack::PackArgs),
    Key(key::KeyArgs),
    Sign(sign::SignArgs),
    Verify(verify::VerifyArgs),
    Push(push::PushArgs),
    Pull(pull::PullArgs),
    Copy(copy::CopyArgs),
    Bundle(bundle::BundleArgs),
    Load(load::LoadArgs),
    List(list::ListArgs),
    Images(images::ImagesArgs),
    Rm(images::RmArgs),
    Gc(images::GcArgs),
    Infer(infer::InferArgs),
    Bench(bench::BenchArgs),
    Backend(backend::BackendArgs),
    Devices(devices::DevicesArgs),
    VerifyDevice(verify_device::VerifyDeviceArgs),
    Token(token::TokenArgs),
    Shim(shim::ShimArgs),
    Operator(operator::OperatorArgs),
    Rollout(rollout::RolloutArgs),
    Activator(activator::ActivatorArgs),
    Agent(agent::AgentArgs),
    Hub(Box<hub::HubArgs>),
    Fleet(Box<fleet::FleetArgs>),
    Completions(completions::CompletionsArgs),
    #[command(hide = true)]
    Worker(worker::WorkerArgs),
}

/// Print help, the version, or what is wrong with the command line.
pub fn refuse(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // Help that nobody reads to its end is no failure.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    if wants_json(std::env::args_os().map(|arg| arg.to_string_lossy().into_owned())) {
        let text = error.to_string();
        let text = text.trim().trim_start_matches("error: ");
        Failure::usage(text.lines().next().unwrap_or(text))
            .detail("usage", text.into())
            .report(Format::Json);
    } else {
        let text = error.render();
        if output::coloured() { eprint!("{}", text.ansi()) } else { eprint!("{text}") }
    }
    Exit::Usage.into()
}

/// Whether a command line that could not be parsed asks for JSON.
fn wants_json(args: impl Iterator<Item = String>) -> bool {
    let mut before = String::new();
    for arg in args.take_while(|arg| arg != "--") {
        if arg == "--output=json" || (before == "--output" && arg == "json") {
            return true;
        }
        before = arg;
    }
    false
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn json_is_recognised_even_in_a_wrong_command_line() {
        let json = |line: &str| wants_json(line.split(' ').map(str::to_owned));
        assert!(json("wick run --output json --bad"));
        assert!(json("wick --output=json run"));
        assert!(!json("wick run --output human"));
        assert!(!json("wick run a -- --output json"));
    }

    #[test]
    fn what_follows_two_dashes_belongs_to_the_guest() {
        let cli = Cli::try_parse_from(["wick", "run", "dir", "--", "--addr", "x"]).unwrap();
        let Command::Run(run) = cli.command else { panic!("not run") };
        assert_eq!(run.guest_args, ["--addr", "x"]);
        assert_eq!(run.packages.len(), 1);
    }
}
