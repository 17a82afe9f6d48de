//! The results as a table for people.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context as _;

use super::lineup::{HANDLER, PYTHON, TRITON, WICK};
use super::rounds::{Case, Figures, Results};

const COLUMNS: [(&str, &str); 5] = [
    (WICK, "wick"),
    (HANDLER, "wick, handler"),
    (TRITON, "Triton"),
    (PYTHON[0], "MLServer"),
    (PYTHON[1], "KServe"),
];

/// A heading and its results.
pub type Part = (&'static str, Results);

/// Write the tables to a file, and say where they are.
pub fn write(path: &Path, machine: &str, parts: &[Part]) -> anyhow::Result<()> {
    let mut text = format!("{machine}\n");
    for (heading, results) in parts {
        // Writing to a string does not fail.
        let _ = write!(text, "\n{heading}: requests a second / p99 in ms / server CPU in ms\n\n");
        text.push_str(&table(results));
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    eprintln!("table: {}", path.display());
    Ok(())
}

/// Only servers that have answered are columns; who can't do a case has a dash in it.
fn table(results: &Results) -> String {
    let present = |name: &str| results.values().any(|servers| servers.contains_key(name));
    let columns: Vec<_> = COLUMNS.into_iter().filter(|(name, _)| present(name)).collect();
    let names: Vec<&str> = columns.iter().map(|(_, name)| *name).collect();
    let mut text = format!("| case | {} |\n", names.join(" | "));
    text.push_str(&format!("|---{}|\n", "|---:".repeat(columns.len())));
    for (case, servers) in results {
        let cells: Vec<String> =
            columns.iter().map(|(name, _)| cell(servers.get(name).copied())).collect();
        text.push_str(&format!("| {} | {} |\n", title(*case), cells.join(" | ")));
    }
    text
}

fn title(case: Case) -> String {
    format!("{}, {} at once", case.protocol.name(), case.concurrency)
}

fn cell(figures: Option<Figures>) -> String {
    figures.map_or_else(
        || "–".to_owned(),
        |figures| {
            let Figures { per_second, p99_ms, cpu_ms, .. } = figures;
            format!("{per_second:.0} / {p99_ms:.2} / {cpu_ms:.3}")
        },
    )
}

#[cfg(test)]
mod tests {
    use super::super::question::Protocol;
    use super::*;

    #[test]
    fn a_server_that_cannot_do_a_case_has_a_dash_in_it() {
        let figures = Figures { per_second: 1234.5, p50_ms: 1.0, p99_ms: 2.0, cpu_ms: 0.25 };
        let case = |protocol| Case { protocol, concurrency: 4 };
        let results = Results::from([
            (case(Protocol::Json), [(WICK, figures), (PYTHON[0], figures)].into()),
            (case(Protocol::Binary), [(WICK, figures)].into()),
        ]);
        let lines: Vec<String> = table(&results).lines().map(str::to_owned).collect();
        assert_eq!(
            lines,
            [
                "| case | wick | MLServer |",
                "|---|---:|---:|",
                "| json, 4 at once | 1234 / 2.00 / 0.250 | 1234 / 2.00 / 0.250 |",
                "| binary, 4 at once | 1234 / 2.00 / 0.250 | – |",
            ]
        );
    }
}
