//! Rules for one Rust file.

use std::ops::Range;

use super::files::File;
use super::{Problem, scan};

/// Lines of a file; past this it is split by noun.
const MAX_FILE: usize = 500;

/// Lines of a function, and of `main`, which only parses, builds and waits.
const MAX_FUNCTION: usize = 70;
const MAX_MAIN: usize = 60;

/// Files that may hold `unsafe`, each with its reason. Every other one is safe code.
const UNSAFE: &[(&str, &str)] = &[
    ("runtime/nn/src/onnxruntime/facts.rs", "ONNX Runtime's C interface"),
    ("runtime/nn/src/onnxruntime/graph.rs", "ONNX Runtime's C interface"),
    ("runtime/nn/src/onnxruntime/map.rs", "maps libraries, whose own code runs then"),
    ("runtime/nn/src/onnxruntime/value.rs", "ONNX Runtime's C interface"),
    ("runtime/engine/src/program.rs", "maps native code that this user's wick has compiled"),
    ("shim/sandbox/src/sys.rs", "system calls that no crate has, and capabilities"),
    ("shim/sandbox/tests/lockdown/probe.rs", "tries what a locked down process may not do"),
    ("shim/src/cgroup/device.rs", "loads the program that decides about devices"),
    ("shim/src/clone/child.rs", "a child between clone and exec"),
    ("shim/src/console.rs", "takes a terminal's descriptor from a message"),
    ("shim/src/pause.rs", "takes the descriptors that it was started with"),
    ("sdk/guest-macros/src/expand.rs", "the word in the syntax that its tests refuse"),
];

/// Check one file by itself.
pub fn check(file: &File, problems: &mut Vec<Problem>) {
    let mut add = |line: usize, what: String| {
        problems.push(Problem::new(format!("{}:{line}", file.path), what));
    };
    let lines = file.text.lines().count();
    if lines >= MAX_FILE {
        add(lines, format!("{lines} lines; from {MAX_FILE} on a file is split by noun"));
    }
    if file.path.ends_with("/mod.rs") && !file.path.contains("/tests/") {
        add(1, "no mod.rs: the module is the file beside its folder".to_owned());
    }
    // What `foo/tests.rs` is, its name says.
    if !file.text.starts_with("//!") && !file.path.ends_with("/tests.rs") {
        add(1, "starts with `//!`: what this is, and what it refuses to know".to_owned());
    }
    let code = scan::blank(&file.text);
    for function in scan::functions(&code) {
        let length = function.lines.len();
        let max = if function.name == "main" { MAX_MAIN } else { MAX_FUNCTION };
        if length > max {
            let name = function.name;
            add(function.lines.start, format!("`{name}` has {length} lines; {max} is the limit"));
        }
    }
    let tests = scan::test_lines(&code);
    let in_test = |line| file.is_test() || tests.iter().any(|lines| lines.contains(&line));
    for (line, text) in (1..).zip(code.lines()) {
        if text.contains(".unwrap()") && !in_test(line) {
            add(
                line,
                "`unwrap` outside tests: return an error, or `expect` with the reason".into(),
            );
        }
        if has_word(text, "unsafe") && !may_be_unsafe(&file.path) {
            add(line, "`unsafe` in a file that xtask/src/tidy/rust.rs does not list".into());
        }
    }
}

/// Each line of the table of unsafe files still names a file with `unsafe` in it.
pub fn check_table(files: &[File], problems: &mut Vec<Problem>) {
    for (path, _) in UNSAFE {
        let file = files.iter().find(|file| file.path == *path);
        if !file.is_some_and(|file| has_word(&scan::blank(&file.text), "unsafe")) {
            let what = "listed in xtask/src/tidy/rust.rs as unsafe, but has none";
            problems.push(Problem::new(*path, what));
        }
    }
}

fn may_be_unsafe(path: &str) -> bool {
    UNSAFE.iter().any(|(listed, _)| *listed == path)
}

fn has_word(text: &str, word: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let Range { start, end } = at..at + word.len();
        !text[..start].ends_with(is_word) && !text[end..].starts_with(is_word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(path: &str, text: &str) -> Vec<String> {
        let mut problems = Vec::new();
        check(&File { path: path.to_owned(), text: text.to_owned() }, &mut problems);
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_rule_is_broken_by_what_breaks_it() {
        let long_function = format!("//! x\nfn a() {{\n{}}}\n", "f();\n".repeat(70));
        let cases = [
            ("a/src/b.rs", "fn a() {}\n", "starts with"),
            ("a/src/mod.rs", "//! x\n", "mod.rs"),
            ("a/src/b.rs", &format!("//! x\n{}", "\n".repeat(500)), "501 lines"),
            ("a/src/b.rs", &long_function, "`a` has 72 lines"),
            ("a/src/b.rs", "//! x\nfn a() { b.unwrap(); }\n", "`unwrap`"),
            ("a/src/b.rs", "//! x\nunsafe fn a() {}\n", "`unsafe`"),
        ];
        for (path, text, expected) in cases {
            let found = problems(path, text);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(found[0].contains(expected), "{found:?}");
        }
    }

    #[test]
    fn tests_may_unwrap_and_words_in_comments_do_not_count() {
        let text =
            "//! x\n// unsafe .unwrap()\n#[cfg(test)]\nmod t {\n  fn a() { b.unwrap() }\n}\n";
        assert_eq!(problems("a/src/b.rs", text), [""; 0]);
        assert_eq!(problems("a/tests/b.rs", "//! x\nfn a() { b.unwrap() }\n"), [""; 0]);
    }
}
