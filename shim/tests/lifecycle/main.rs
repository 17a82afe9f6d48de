//! The shim as containerd sees it: started by its own `start` action, called over ttrpc, its
//! events received. The worker is a stand-in, this same executable, that speaks the channel's
//! protocol and does what its arguments say.
//!
//! It needs root, and mounts and control groups. Without root it says so and does nothing,
//! under CI it fails.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test's words are its result")]

mod cases;
mod containerd;
mod faults;
mod ordinary;
mod policy;
mod runner;
mod shim;
mod spec;
mod stand_in;
mod tools;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "worker") {
        stand_in::main();
        return;
    }
    runner::main(&args, &[cases::ALL, faults::ALL, ordinary::ALL, policy::ALL], &[containerd::ALL]);
}
