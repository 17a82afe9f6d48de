//! The mistakes of one `wick.toml`, collected while it is read and reported together.

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::reason::Reason;

/// Most mistakes that are reported. A file with more is not a manifest at all.
const MAX_MISTAKES: usize = 100;

/// Longest message, in characters: it may quote a value, and a value may be the whole file.
const MAX_MESSAGE_CHARS: usize = 400;

/// Everything that is wrong with a `wick.toml`, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestErrors {
    file: PathBuf,
    mistakes: Vec<Mistake>,
}

/// One mistake, its place, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Mistake {
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1, in characters.
    pub column: usize,
    pub message: String,
}

/// Collects mistakes behind a shared reference, so that readers of nested tables
/// can all report.
pub(crate) struct Mistakes<'a> {
    text: &'a str,
    found: RefCell<Vec<(usize, String)>>,
}

// === impl ManifestErrors ===

impl ManifestErrors {
    /// The file, as it was given.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Never empty.
    pub fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }
}

impl fmt::Display for ManifestErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        match self.mistakes.len() {
            1 => write!(f, "{file} has a mistake:")?,
            count => write!(f, "{file} has {count} mistakes:")?,
        }
        for Mistake { line, column, message } in &self.mistakes {
            write!(f, "\n  {file}:{line}:{column}: {message}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ManifestErrors {}

impl Reason for ManifestErrors {
    fn code(&self) -> &'static str {
        "bad-manifest"
    }
}

// === impl Mistakes ===

impl<'a> Mistakes<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, found: RefCell::default() }
    }

    /// Note a mistake at a byte of the text.
    pub(crate) fn add(&self, at: usize, message: impl fmt::Display) {
        let mut found = self.found.borrow_mut();
        if found.len() < MAX_MISTAKES {
            found.push((at, one_line(&message.to_string())));
        }
    }

    /// The value, if there was no mistake; else all of them.
    pub(crate) fn finish<T>(self, file: &Path, value: Option<T>) -> Result<T, ManifestErrors> {
        let mut found = self.found.into_inner();
        match value {
            Some(value) if found.is_empty() => return Ok(value),
            // A reader gives no value only after it reported why; should one forget,
            // the author still learns that the file was refused.
            None if found.is_empty() => found.push((0, "this is not a manifest".to_owned())),
            _ => {}
        }
        found.sort_by_key(|(at, _)| *at);
        let place = |(at, message)| {
            let (line, column) = line_and_column(self.text, at);
            Mistake { line, column, message }
        };
        let mistakes = found.into_iter().map(place).collect();
        Err(ManifestErrors { file: file.to_owned(), mistakes })
    }
}

/// Quoted values may hold line breaks or terminal codes, and may be long.
fn one_line(message: &str) -> String {
    let mut line = String::with_capacity(message.len().min(MAX_MESSAGE_CHARS));
    for (count, char) in message.chars().enumerate() {
        if count == MAX_MESSAGE_CHARS {
            line.push('…');
            break;
        }
        if char.is_control() {
            line.extend(char.escape_default());
        } else {
            line.push(char);
        }
    }
    line
}

fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(at)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
    (line, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_lines_and_characters_from_one() {
        let text = "a\nüb\n";
        let places: Vec<_> = [0, 1, 2, 4, 5, 6, 99].map(|at| line_and_column(text, at)).into();
        assert_eq!(places, [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3), (3, 1), (3, 1)]);
    }

    #[test]
    fn a_message_is_one_short_line() {
        assert_eq!(one_line("a\nb\u{1b}[0m"), "a\\nb\\u{1b}[0m");
        assert_eq!(one_line(&"ä".repeat(1000)).chars().count(), MAX_MESSAGE_CHARS + 1);
    }
}
