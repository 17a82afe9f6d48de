//! `cargo run -p wick-sim -- --seed N --trace` tells one run; `-- --seeds N` looks for one that breaks.

#![allow(clippy::print_stdout, reason = "what happened is the output")]

use anyhow::{Context as _, bail, ensure};

const USAGE: &str = "usage: wick-sim [--seed FIRST] [--seeds COUNT] [--trace]";

fn main() -> anyhow::Result<()> {
    let (mut first, mut count, mut trace) = (0, 1, false);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || -> anyhow::Result<u64> { Ok(args.next().context(USAGE)?.parse()?) };
        match arg.as_str() {
            "--seed" => first = number()?,
            "--seeds" => count = number()?,
            "--trace" => trace = true,
            _ => bail!(USAGE),
        }
    }
    let mut broken = 0;
    for seed in first..first.saturating_add(count) {
        let outcome = wick_sim::run(seed, trace);
        print!("{}", outcome.trace);
        if let Some(what) = &outcome.broken {
            broken += 1;
            println!("seed {seed} is broken {what}");
        } else if count == 1 {
            println!("seed {seed} holds: {} events, {}", outcome.events, outcome.digest);
        }
    }
    println!("{broken} of {count} seeds are broken");
    ensure!(broken == 0, "promises were broken: run a seed again with --seed N --trace");
    Ok(())
}
