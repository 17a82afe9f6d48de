//! `cargo test` and scripts of checks, with their lines passed on and their tests counted.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

use crate::report::Counts;

/// Run it to its end, and note the names of the tests that failed. A failed test is no error.
pub fn run(cargo: &mut Command, failures: &mut Vec<String>) -> anyhow::Result<Counts> {
    cargo.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = cargo.spawn().context("start cargo test")?;
    let stdout = child.stdout.take().context("cargo test has no standard output")?;
    let mut counts = Counts::default();
    for line in BufReader::new(stdout).lines() {
        let line = line.context("read what cargo test prints")?;
        println!("{line}");
        counts = counts.plus(Counts::parse(&line).unwrap_or_default());
        failures.extend(failed(&line));
    }
    let status = child.wait()?;
    ensure!(status.success() || counts.failed > 0, "cargo test failed: {status}");
    Ok(counts)
}

/// Run a script whose last line counts its checks, with its lines passed on.
pub fn script(script: &mut Command) -> anyhow::Result<Counts> {
    let mut child = script.stdout(Stdio::piped()).spawn().context("start the script")?;
    let stdout = child.stdout.take().context("the script has no standard output")?;
    let mut counts = None;
    for line in BufReader::new(stdout).lines() {
        let line = line.context("read what the script prints")?;
        println!("{line}");
        counts = Counts::parse(&line).or(counts);
    }
    let status = child.wait()?;
    counts.with_context(|| format!("the script told no result: {status}"))
}

/// The name of the test in libtest's `test NAME ... FAILED`.
fn failed(line: &str) -> Option<String> {
    line.strip_prefix("test ")?.strip_suffix(" ... FAILED").map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_tests_are_named() {
        assert_eq!(failed("test a::b ... FAILED").as_deref(), Some("a::b"));
        assert_eq!(failed("test a::b ... ok"), None);
        assert_eq!(failed("test result: FAILED. 1 passed; 1 failed"), None);
    }
}
