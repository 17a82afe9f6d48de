//! What `cargo xtask test` tells at the end: how long each step took, how many tests
//! passed and failed, and what was left out. Counts only; runs nothing.

use std::fmt;
use std::time::{Duration, Instant};

/// The steps that were done so far.
pub struct Report {
    counts: Counts,
    steps: Vec<(String, Duration)>,
    failures: Vec<String>,
    left_out: Vec<String>,
    start: Instant,
}

/// Tests that passed, failed, and were not run although they exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub passed: u64,
    pub failed: u64,
    pub ignored: u64,
}

// === impl Report ===

impl Report {
    pub fn new() -> Self {
        Self {
            counts: Counts::default(),
            steps: Vec::new(),
            failures: Vec::new(),
            left_out: Vec::new(),
            start: Instant::now(),
        }
    }

    /// Do a step that is one check: it passes or fails as a whole.
    pub fn check(
        &mut self,
        name: &str,
        work: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.step(name, || work().map(|()| Counts { passed: 1, ..Counts::default() }))
    }

    /// Do a step that counts its own tests. An error without a failed test counts as one.
    pub fn step(
        &mut self,
        name: &str,
        work: impl FnOnce() -> anyhow::Result<Counts>,
    ) -> anyhow::Result<()> {
        eprintln!("==> {name}");
        let start = Instant::now();
        let done = work();
        let took = start.elapsed();
        eprintln!("    {name}: {}", Seconds(took));
        self.steps.push((name.to_owned(), took));
        match done {
            Ok(counts) => {
                self.counts = self.counts.plus(counts);
                anyhow::ensure!(counts.failed == 0, "{} tests failed in `{name}`", counts.failed);
                Ok(())
            }
            Err(error) => {
                self.counts.failed += 1;
                Err(error.context(format!("`{name}` failed")))
            }
        }
    }

    /// Note the name of a test that failed.
    pub fn failure(&mut self, name: String) {
        self.failures.push(name);
    }

    /// The tests that are marked as ignored were run as steps of their own.
    pub fn nothing_ignored(&mut self) {
        self.counts.ignored = 0;
    }

    pub fn leave_out(&mut self, what: impl Into<String>) {
        self.left_out.push(what.into());
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        for (name, took) in &self.steps {
            writeln!(f, "{name:<24} {:>8}", Seconds(*took).to_string())?;
        }
        writeln!(f, "{:<24} {:>8}", "all", Seconds(self.start.elapsed()).to_string())?;
        for name in &self.failures {
            writeln!(f, "FAILED: {name}")?;
        }
        for what in &self.left_out {
            writeln!(f, "left out: {what}")?;
        }
        if self.counts.ignored > 0 {
            writeln!(f, "left out: {} tests that are marked as ignored", self.counts.ignored)?;
        }
        writeln!(f, "{}", self.counts)
    }
}

// === impl Counts ===

impl Counts {
    pub fn plus(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            ignored: self.ignored + other.ignored,
        }
    }

    /// Read libtest's `test result: ok. 3 passed; 0 failed; 1 ignored; …` or a client's
    /// `3 passed, 0 failed`; none for another line.
    pub fn parse(line: &str) -> Option<Self> {
        let line = match line.strip_prefix("test result: ") {
            Some(rest) => rest.split_once(". ")?.1,
            None => line,
        };
        let count = |word: &str| {
            let mut parts = line.split([';', ',']).filter_map(|part| part.trim().split_once(' '));
            parts.find(|(_, name)| *name == word).and_then(|(count, _)| count.parse().ok())
        };
        let (passed, failed) = (count("passed")?, count("failed")?);
        Some(Self { passed, failed, ignored: count("ignored").unwrap_or(0) })
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// A duration for people.
pub struct Seconds(pub Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            0 => write!(f, "{} ms", self.0.as_millis()),
            1..60 => write!(f, "{:.1} s", self.0.as_secs_f64()),
            seconds => write!(f, "{}m {:02}s", seconds / 60, seconds % 60),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_counted() {
        let line = "test result: FAILED. 12 passed; 2 failed; 1 ignored; 0 measured; \
                    3 filtered out; finished in 0.10s";
        let counts = Counts { passed: 12, failed: 2, ignored: 1 };
        assert_eq!(Counts::parse(line), Some(counts));
        let counts = Counts { passed: 8, failed: 0, ignored: 0 };
        assert_eq!(Counts::parse("8 passed, 0 failed"), Some(counts));
        for line in ["", "test a ... ok", "running 3 tests", "test result: ", "x passed, y failed"]
        {
            assert_eq!(Counts::parse(line), None, "{line}");
        }
    }

    #[test]
    fn a_failed_step_counts_and_ends_the_run() {
        let mut report = Report::new();
        assert!(report.check("good", || Ok(())).is_ok());
        assert!(report.check("bad", || anyhow::bail!("no")).is_err());
        let two = Counts { passed: 5, failed: 2, ignored: 0 };
        assert!(report.step("tests", || Ok(two)).is_err());
        report.leave_out("arm64");
        let text = report.to_string();
        assert!(text.ends_with("left out: arm64\n6 passed, 3 failed\n"), "{text}");
    }
}
