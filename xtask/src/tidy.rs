//! The house rules that no compiler checks: who may depend on whom, how long a file and a
//! function may be, what every file starts with, links that resolve. It runs as a test too.

mod crates;
mod files;
mod licences;
mod links;
mod rust;
mod scan;
mod supply;
mod text;

use std::fmt;

use anyhow::bail;

use crate::house::{House, Metadata};

/// A rule that is broken, and where.
pub struct Problem {
    place: String,
    what: String,
}

/// Check all rules; list what is broken.
pub fn run(house: &House) -> anyhow::Result<()> {
    let problems = check(house)?;
    for problem in &problems {
        eprintln!("{problem}");
    }
    match problems.len() {
        0 => Ok(()),
        1 => bail!("1 house rule is broken"),
        count => bail!("{count} house rules are broken"),
    }
}

fn check(house: &House) -> anyhow::Result<Vec<Problem>> {
    let files = files::read(&house.root)?;
    let mut problems = Vec::new();
    for file in &files {
        text::check(file, &mut problems);
        match file.extension() {
            "rs" => rust::check(file, &mut problems),
            "md" => links::check(&house.root, file, &mut problems),
            _ => {}
        }
    }
    rust::check_table(&files, &mut problems);
    crates::check(house, &mut problems)?;
    supply::check(house, &Metadata::read_all()?, &mut problems)?;
    problems.sort_by(|a, b| a.place.cmp(&b.place));
    Ok(problems)
}

// === impl Problem ===

impl Problem {
    fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_house_is_tidy() -> anyhow::Result<()> {
        run(&House::find()?)
    }
}
