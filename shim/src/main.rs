//! `containerd-shim-wick-v1`: runs wick packages as containers.
//!
//! ```text
//!  containerd ── start ──▶ bootstrap ── spawns ──▶ serve ── ttrpc ──▶ task ──▶ pod
//!                                                                          │
//!      plan (pure) ◀── config.json ── create ──▶ clone ──▶ pause | worker  │
//!                                          └───▶ runc: side-cars           │
//!  containerd ── delete ─▶ cleanup (no living shim)    cgroup, stdio, events
//! ```
//!
//! It knows containerd's task API, namespaces, control groups and how to start `wick worker`;
//! it does not know Kubernetes' API, WebAssembly or inference.

mod bootstrap;
mod cache;
mod cgroup;
mod cleanup;
mod clone;
mod console;
mod container;
mod create;
mod events;
mod exec;
mod exit;
mod hooks;
mod host;
mod journal;
mod ordinary;
mod pause;
mod phases;
mod plan;
mod pod;
mod policy;
mod reaper;
mod rootfs;
mod roster;
mod seal;
mod serve;
mod state;
mod stdio;
mod steps;
mod task;
mod worker;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    // First, because a pause process has no time and no memory to lose.
    if args.first().is_some_and(|arg| arg == pause::ARGUMENT) {
        return ExitCode::from(pause::main());
    }
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // containerd shows what an action writes there; a serving shim's goes nowhere.
            let _ = writeln!(std::io::stderr(), "{}: {error:#}", bootstrap::NAME);
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[OsString]) -> anyhow::Result<()> {
    let flags = containerd_shim::parse(args)?;
    let reply = match flags.action.as_str() {
        _ if flags.version => bootstrap::version(),
        _ if flags.info => bootstrap::info()?,
        "start" => bootstrap::start(&flags)?,
        "delete" => cleanup::delete(&flags)?,
        "" => return serve::serve(&flags),
        other => anyhow::bail!("there is no action `{other}`"),
    };
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(&reply)?;
    Ok(stdout.flush()?)
}
