//! `wick completions`: what a shell needs to complete wick's command line.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::args::Cli;
use crate::failure::Outcome;
use crate::output;

/// Print a completion script for a shell
///
/// For bash: `wick completions bash > ~/.local/share/bash-completion/completions/wick`
#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    #[arg(value_enum)]
    shell: Shell,
}

pub fn run(args: &CompletionsArgs) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "wick", &mut script);
    output::bytes(&script);
    Ok(())
}
