//! Command packages: run once, to their end, with the guest's exit code as wick's own.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use wick_engine::{Grants, ModelKind};

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::host::Host;
use crate::output;

use super::RunArgs;
use super::signals::Signals;

/// Longest run of a job: no bound that anybody meets, and no overflow of a clock.
const MAX_JOB: Duration = Duration::from_secs(365 * 24 * 3600);

/// Run the only package, which must be a command.
///
/// # Errors
/// It can't be loaded, is no command, or traps.
pub async fn run(
    args: &RunArgs,
    host: &Host,
    grants: Grants,
    signals: &mut Signals,
) -> Outcome<ExitCode> {
    let Some(path) = args.packages.first() else {
        return Err(Failure::usage("name a package"));
    };
    let package = args.policy.open(path)?;
    let model = host.engine.load(package, grants).await.map_err(|error| Failure::of(&error))?;
    if model.kind() != ModelKind::Command {
        let name = &model.manifest().name;
        return Err(Failure::usage(format_args!("`{name}` is no command and takes no arguments"))
            .help("serve it without `--`"));
    }
    // `[limits] timeout` is for a request; a job ends when it is done.
    let deadline = Instant::now() + MAX_JOB;
    tokio::select! {
        ended = model.run_captured(&args.guest_args, deadline) => {
            let ended = ended.map_err(|error| Failure::of(&error))?;
            // The log has both streams too, line by line while the job runs; standard
            // output is what pipes are for.
            output::bytes(&ended.stdout);
            // A code that a shell cannot see is still a failure.
            Ok(ExitCode::from(u8::try_from(ended.status).unwrap_or(Exit::Failure.number())))
        }
        () = signals.next() => Ok(Exit::Interrupted.into()),
    }
}

/// Whether the only package is a command. A package that can't be loaded is not.
pub async fn is_command(args: &RunArgs, host: &Host) -> bool {
    let Some(path) = args.packages.first() else { return false };
    let Ok(package) = args.policy.open(path) else { return false };
    if package.manifest().handler.is_none() {
        return false;
    }
    let loaded = host.engine.load(package, Grants::default()).await;
    loaded.is_ok_and(|model| model.kind() == ModelKind::Command)
}
