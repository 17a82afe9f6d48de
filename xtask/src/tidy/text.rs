//! Rules for any text file: whitespace, and words that show that something is not done or
//! works on one machine only.

use super::Problem;
use super::files::File;

/// Words that must not be in the tree, with what to do instead. Spelled in two parts, so
/// that this file does not hold them.
const WORDS: &[(&str, &str, &str)] = &[
    ("TO", "DO", "finish it, or write an issue"),
    ("FIX", "ME", "finish it, or write an issue"),
    ("/ro", "ot/", "a path of one machine: take it from the environment"),
    ("/wo", "rk/", "a path of one machine: take it from the environment"),
];

/// Check one file.
pub fn check(file: &File, problems: &mut Vec<Problem>) {
    let mut add = |line: usize, what: String| {
        problems.push(Problem::new(format!("{}:{line}", file.path), what));
    };
    for (line, text) in (1..).zip(file.text.lines()) {
        if text.ends_with([' ', '\t']) {
            add(line, "whitespace at the end of the line".to_owned());
        }
        for (start, end, instead) in WORDS {
            let word = format!("{start}{end}");
            // In the middle of a path, such as a link of `/proc`, it is none of a machine's.
            let alone = |(at, _): (usize, &str)| {
                !text[..at].ends_with(|c: char| c.is_ascii_alphanumeric())
                    || !start.starts_with('/')
            };
            if text.match_indices(&word).any(alone) {
                add(line, format!("`{word}`: {instead}"));
            }
        }
    }
    if !file.text.is_empty() && (!file.text.ends_with('\n') || file.text.ends_with("\n\n")) {
        add(file.text.lines().count(), "ends with exactly one line feed".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whitespace_and_words_are_found() {
        let cases = [
            ("a \n", 1),
            ("a", 1),
            ("a\n\n", 1),
            ("a\n", 0),
            ("", 0),
            (concat!("// TO", "DO: later\n"), 1),
            (concat!("\"/ro", "ot/x\"\n"), 1),
            (concat!("\"/proc/1/ro", "ot/x\"\n"), 0),
        ];
        for (text, expected) in cases {
            let mut problems = Vec::new();
            check(&File { path: "a.md".to_owned(), text: text.to_owned() }, &mut problems);
            assert_eq!(problems.len(), expected, "{text:?}");
        }
    }
}
