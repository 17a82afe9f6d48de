//! Runs the cases one after another: they measure processes, mounts and control groups of the
//! whole machine.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// A case and its name, a sentence.
pub type Case = (&'static str, fn());

pub fn main(args: &[String], tests: &[&[Case]], ignored: &[&[Case]]) {
    let named: Vec<&str> =
        args.iter().map(String::as_str).filter(|arg| !arg.starts_with('-')).collect();
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    let only_ignored = has("--ignored");
    let chosen = tests.iter().flat_map(|list| list.iter()).filter(|_| !only_ignored);
    let more = ignored
        .iter()
        .flat_map(|list| list.iter())
        .filter(|_| only_ignored || has("--include-ignored"));
    let chosen: Vec<&Case> = chosen
        .chain(more)
        .filter(|(name, _)| named.is_empty() || named.iter().any(|part| name.contains(part)))
        .collect();
    if has("--list") {
        for (name, _) in chosen {
            println!("{name}: test");
        }
        return;
    }
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "the shim's tests need root, and this is CI");
        println!("skipped: the shim's tests need root");
        return;
    }
    println!("running {} tests", chosen.len());
    let mut failed = Vec::new();
    for (name, case) in chosen {
        let begun = Instant::now();
        let passed = catch_unwind(AssertUnwindSafe(case)).is_ok();
        let word = if passed { "ok" } else { "FAILED" };
        println!("test {name} ... {word} ({} ms)", begun.elapsed().as_millis());
        if !passed {
            failed.push(name);
        }
    }
    crate::spec::remove_groups();
    assert!(failed.is_empty(), "failed: {failed:?}");
    println!("test result: ok");
}
