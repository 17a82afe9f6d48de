//! One file for each command.

pub mod activator;
pub mod agent;
pub mod backend;
pub mod bench;
pub mod bundle;
pub mod check;
pub mod completions;
pub mod copy;
pub mod devices;
pub mod fleet;
pub mod hub;
pub mod images;
pub mod import;
pub mod infer;
pub mod inspect;
pub mod key;
pub mod list;
pub mod load;
pub mod new;
pub mod operator;
pub mod pack;
pub mod pull;
pub mod push;
pub mod rollout;
pub mod run;
pub mod shim;
pub mod sign;
pub mod token;
pub mod verify;
pub mod verify_device;
pub mod worker;

use std::process::ExitCode;

use crate::args::{Cli, Command};
use crate::failure::{Failure, Outcome};
use crate::logging;
use crate::output::Format;
use crate::traces::Traces;

/// Run the command that was asked for.
pub fn run(cli: Cli) -> Outcome<ExitCode> {
    let format = cli.global.output;
    if format == Format::Raw && !matches!(cli.command, Command::Infer(_)) {
        return Err(Failure::usage("--output raw is only for `wick infer`"));
    }
    if let Command::Worker(args) = &cli.command {
        // It logs when it may start threads.
        return worker::run(args);
    }
    // A server says what it does; a tool, and a job, only what goes wrong.
    let serves = match &cli.command {
        Command::Run(args) => args.guest_args.is_empty(),
        Command::Operator(args) => args.serves(),
        Command::Activator(_) => true,
        Command::Agent(args) => args.serves(),
        Command::Hub(args) => args.serves(),
        _ => false,
    };
    let level = if serves { "info" } else { "warn" };
    let level = cli.global.log_level.as_deref().unwrap_or(level);
    let endpoint = match &cli.command {
        Command::Run(args) => args.otlp_endpoint.as_deref(),
        _ => None,
    };
    // Dropped when the command is done, which sends the last spans.
    let traces = endpoint.map(Traces::start).transpose()?;
    logging::init(cli.global.log, level, traces.as_ref())?;
    let done = |()| ExitCode::SUCCESS;
    match cli.command {
        Command::Run(args) => run::run(*args, format),
        Command::New(args) => new::run(&args, format).map(done),
        Command::Check(args) => check::run(&args, format).map(done),
        Command::Inspect(args) => inspect::run(&args, format).map(done),
        Command::Import(args) => import::run(&args, format).map(done),
        Command::Pack(args) => pack::run(&args, format).map(done),
        Command::Key(args) => key::run(&args, format).map(done),
        Command::Sign(args) => sign::run(&args, format).map(done),
        Command::Verify(args) => verify::run(&args, format).map(done),
        Command::Push(args) => push::run(&args, format).map(done),
        Command::Pull(args) => pull::run(&args, format).map(done),
        Command::Bundle(args) => bundle::run(&args, format).map(done),
        Command::Load(args) => load::run(&args, format).map(done),
        Command::Copy(args) => copy::run(&args, format).map(done),
        Command::List(args) => list::run(&args, format).map(done),
        Command::Images(args) => images::list(&args, format).map(done),
        Command::Rm(args) => images::remove(&args, format).map(done),
        Command::Gc(args) => images::collect(&args, format).map(done),
        Command::Infer(args) => infer::run(&args, format).map(done),
        Command::Bench(args) => bench::run(&args, format).map(done),
        Command::Backend(args) => backend::run(&args, format).map(done),
        Command::Devices(args) => devices::run(&args, format).map(done),
        Command::VerifyDevice(args) => verify_device::run(&args, format).map(done),
        Command::Token(args) => token::run(&args, format).map(done),
        Command::Shim(args) => shim::run(&args, format).map(done),
        Command::Activator(args) => activator::run(&args, format),
        Command::Operator(args) => operator::run(&args, format).map(done),
        Command::Agent(args) => agent::run(&args, format).map(done),
        Command::Rollout(args) => rollout::run(&args, format).map(done),
        Command::Hub(args) => hub::run(&args, format).map(done),
        Command::Fleet(args) => fleet::run(&args, format).map(done),
        Command::Completions(args) => completions::run(&args).map(done),
        Command::Worker(args) => worker::run(&args),
    }
}
