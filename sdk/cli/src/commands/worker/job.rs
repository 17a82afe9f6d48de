//! A command of a container: what it prints goes to the container's own output as it is
//! written, and its code is the container's.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use wick_engine::{Model, Streams};

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};

use super::signals::Listening;
use super::{Worker, ended_by};

/// Longest run of a job: no bound that anybody meets, and no overflow of a clock.
const MAX_JOB: Duration = Duration::from_secs(365 * 24 * 3600);

/// Run a loaded command to its end.
///
/// # Errors
/// It traps.
pub async fn run(worker: &Worker, model: Model) -> Outcome<ExitCode> {
    let mut signals = Listening::new(&worker.signals)?;
    let streams = own_streams().context("cannot copy a descriptor")?;
    let args: Vec<_> = worker.order.args.iter().skip(1).cloned().collect();
    // On a thread of its own: a command that waits for its reader must not keep signals from
    // being seen.
    let deadline = Instant::now() + MAX_JOB;
    let task = tokio::spawn(async move { model.run_streamed(&args, deadline, streams).await });
    tokio::select! {
        ended = task => {
            let status = ended.map_err(anyhow::Error::new)?.map_err(|error| Failure::of(&error))?;
            // A code that a shell cannot see is still a failure.
            Ok(ExitCode::from(u8::try_from(status).unwrap_or(Exit::Failure.number())))
        }
        // The process ends, and the command with it.
        signal = signals.next() => Ok(ended_by(signal)),
    }
}

fn own_streams() -> io::Result<Streams> {
    let stdout = io::stdout().as_fd().try_clone_to_owned()?;
    let stderr = io::stderr().as_fd().try_clone_to_owned()?;
    Ok(Streams { stdout: File::from(stdout), stderr: File::from(stderr) })
}
