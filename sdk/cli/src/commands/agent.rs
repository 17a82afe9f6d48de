//! `wick agent`: a site of a fleet.

mod enrol;
mod run;
mod status;

use std::path::PathBuf;

use wick_agent::{AgentError, ControlError, EnrolError, KeepError};

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::Format;

/// Where a site's things are, unless it is told otherwise.
const STATE: &str = "/var/lib/wick/agent";

/// A site of a fleet: enrol it, run it, look at it
#[derive(Debug, clap::Args)]
pub struct AgentArgs {
    #[command(subcommand)]
    command: AgentCommand,
}

#[derive(Debug, clap::Subcommand)]
enum AgentCommand {
    /// Join a fleet: make this site's key, and get a certificate for it with a one-time token
    Enrol(enrol::EnrolArgs),
    /// Serve what the hub says this site is to have, and report
    ///
    /// What was served before is served at once, with nobody to ask. The first SIGTERM or Ctrl-C
    /// finishes the requests in work.
    Run(Box<run::RunArgs>),
    /// Say what this site serves, and whether it is connected
    Status(status::StatusArgs),
}

/// The folder of a site.
#[derive(Debug, clap::Args)]
struct StateArgs {
    /// The folder with the site's key, its certificate, what it serves and its images
    #[arg(long, value_name = "DIR", env = "WICK_AGENT_STATE", default_value = STATE)]
    state: PathBuf,
}

// === impl AgentArgs ===

impl AgentArgs {
    /// Whether it runs on and says what it does.
    pub fn serves(&self) -> bool {
        matches!(self.command, AgentCommand::Run(_))
    }
}

pub fn run(args: &AgentArgs, format: Format) -> Outcome {
    match &args.command {
        AgentCommand::Enrol(args) => enrol::run(args, format),
        AgentCommand::Run(args) => run::run(args),
        AgentCommand::Status(args) => status::run(args, format),
    }
}

fn keep_failure(error: &KeepError) -> Failure {
    let (exit, code) = match error {
        KeepError::NotEnrolled { .. } => (Exit::NotFound, "not-enrolled"),
        KeepError::Damaged { .. } => (Exit::BadData, "damaged-state"),
        KeepError::Busy { .. } => (Exit::Unavailable, "agent-runs"),
        KeepError::Io { .. } => (Exit::CannotCreate, "state-unusable"),
        KeepError::Random => (Exit::Failure, "internal"),
    };
    Failure::new(exit, code, error).caused_by(std::error::Error::source(error))
}

fn enrol_failure(error: &EnrolError) -> Failure {
    if let EnrolError::Keep(error) = error {
        return keep_failure(error);
    }
    let (exit, help) = match error {
        EnrolError::Unreachable { .. } => {
            (Exit::Unavailable, Some("a hub with an authority of its own is trusted by --hub-ca"))
        }
        EnrolError::Refused { code, .. } => (
            Exit::Refused,
            match code.as_str() {
                "token" => Some(
                    "a token is for one site, once: ask for a new one, which `wick fleet enrol-token` makes",
                ),
                "enrolled" => Some("ask for a token that `wick fleet enrol-token --again` makes"),
                _ => None,
            },
        ),
        EnrolError::Url(_) | EnrolError::Plain(_) => (Exit::Usage, None),
        _ => (Exit::Failure, None),
    };
    let failure = Failure::new(exit, error.code(), error);
    let failure = failure.caused_by(std::error::Error::source(error));
    match help {
        Some(help) => failure.help(help),
        None => failure,
    }
}

fn agent_failure(error: &AgentError) -> Failure {
    match error {
        AgentError::Keep(error) => keep_failure(error),
        AgentError::Target(error) => Failure::new(Exit::CannotCreate, "state-unusable", error),
        AgentError::Control(error) => control_failure(error),
    }
}

fn control_failure(error: &ControlError) -> Failure {
    let source = std::error::Error::source(error);
    Failure::new(Exit::Unavailable, "address-in-use", error).caused_by(source)
}
