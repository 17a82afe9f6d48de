//! `cargo test`, with its lines passed on and its tests counted.

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
