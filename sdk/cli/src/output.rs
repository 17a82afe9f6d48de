//! How results reach people and programs: one JSON document on stdout, or text and
//! tables. What people read beside the result goes to stderr.

use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};

use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

/// Screen updates of a progress bar in a second: smooth, and too few to be felt.
const REDRAWS: u8 = 10;

/// How a command prints its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Text and tables.
    #[value(alias = "table", alias = "text")]
    Human,
    /// One JSON document on standard output.
    Json,
    /// Nothing but an output's bytes (`wick infer`).
    Raw,
}

/// Print one JSON document on a line of its own.
pub fn json(value: &impl Serialize) {
    match serde_json::to_string(value) {
        Ok(text) => line(&text),
        Err(error) => eprintln!("error: the result has no JSON form: {error}"),
    }
}

/// Print a line of the result. A reader that went away (`wick … | head`) ends nothing
/// but the printing.
pub fn line(text: impl Display) {
    bytes(format!("{text}\n").as_bytes());
}

/// Print bytes of the result as they are.
pub fn bytes(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(bytes).and_then(|()| out.flush());
}

/// A table for people.
pub fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.map(bold));
    table
}

/// A progress bar on stderr; it shows nothing where nobody sees it.
pub fn progress(format: Format, length: Option<u64>, template: &str) -> ProgressBar {
    if format != Format::Human {
        return ProgressBar::hidden();
    }
    let bar = match length {
        Some(length) => ProgressBar::new(length),
        None => ProgressBar::new_spinner(),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(REDRAWS));
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

/// A size for people.
pub fn size(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

pub fn red(text: &str) -> String {
    paint("1;31", text)
}

pub fn cyan(text: &str) -> String {
    paint("36", text)
}

pub fn green(text: &str) -> String {
    paint("32", text)
}

pub fn bold(text: &str) -> String {
    paint("1", text)
}

/// Colour is for a terminal, and `NO_COLOR` turns it off (<https://no-color.org>).
pub fn coloured() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !refused && std::io::stderr().is_terminal() && std::io::stdout().is_terminal()
}

fn paint(style: &str, text: &str) -> String {
    if coloured() { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
}
