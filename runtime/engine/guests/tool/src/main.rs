//! A command: it prints its arguments and ends with the status that the first one
//! says. As `loop` it never ends, as `panic` it panics.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what a command prints is what is tested"
)]

use std::hint::black_box;

fn main() {
    let args: Vec<_> = std::env::args().collect();
    println!("{}", args.join(" "));
    eprintln!("{} arguments", args.len() - 1);
    match args.get(1).map(String::as_str) {
        Some("loop") => loop {
            black_box(0);
        },
        Some("panic") => panic!("no luck as a tool"),
        Some(status) => std::process::exit(status.parse().unwrap_or(1)),
        None => {}
    }
}
