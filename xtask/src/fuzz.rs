//! `cargo xtask fuzz`: coverage-guided tests of what parses input from outside, on the pinned
//! toolchain.
//!
//! Coverage needs no nightly compiler, only flags that LLVM understands. They are for the code
//! of this tree alone: xtask stands in for rustc where cargo builds a member of the workspace
//! ([`compile`]), so that dependencies are used as they are built already.
//!
//! Seeds are in `runtime/fuzz/seeds/TARGET`. What is found goes to the cache; a crash goes
//! to the seeds, where an ordinary test replays it.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

use crate::house::House;
use crate::tools;

/// How long one target runs unless it is said.
const SECONDS: u32 = 60;

/// How long CI runs one target: enough to notice a parser that lost a check.
const CI_SECONDS: u32 = 20;

/// Longest input. Parsers show what they are with little; long inputs only make it slow.
const MAX_INPUT: u32 = 4096;

/// Most seconds for one input, far above what any takes.
const INPUT_TIMEOUT: u32 = 10;

const FOLDER: &str = "runtime/fuzz";
const PACKAGE: &str = "wick-fuzz";

/// What makes rustc count which edges run, and what numbers are compared.
const COVERAGE: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    // One set of counters a crate: the linker drops those of further units.
    "-Ccodegen-units=1",
];

/// What to run.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    target: Option<String>,
    seconds: u32,
}

/// Search in all targets, or in one.
pub fn run(house: &House, args: &[String]) -> anyhow::Result<()> {
    let options = Options::parse(args)?;
    let all = targets(house)?;
    let names: Vec<&str> = match &options.target {
        None => all.iter().map(String::as_str).collect(),
        Some(name) => {
            ensure!(all.contains(name), "there is no target {name}, only {}", all.join(", "));
            vec![name]
        }
    };
    let fuzzer = build(house)?;
    for name in names {
        search(house, &fuzzer, name, options.seconds)?;
    }
    Ok(())
}

/// The step of `cargo xtask test`.
pub fn step(house: &House) -> anyhow::Result<()> {
    run(house, &["--seconds".to_owned(), CI_SECONDS.to_string()])
}

/// Be rustc: what cargo starts for members of the workspace. `args` are the compiler and its
/// arguments.
pub fn compile(args: &[String]) -> anyhow::Error {
    let mut rustc = Command::new(&args[0]);
    rustc.args(&args[1..]);
    if is_instrumented(&args[1..]) {
        rustc.args(COVERAGE);
    }
    anyhow::Error::new(rustc.exec()).context("cannot start rustc")
}

/// Whether cargo means xtask to be rustc.
pub fn is_compiler(args: &[String]) -> bool {
    let stem = args.first().and_then(|first| Path::new(first).file_stem());
    stem.is_some_and(|stem| stem == "rustc")
}

/// Not what runs inside the compiler or before it, since nothing counts there.
fn is_instrumented(args: &[String]) -> bool {
    let value = |flag: &str| {
        let at = args.iter().position(|arg| arg == flag)?;
        args.get(at + 1).map(String::as_str)
    };
    let name = value("--crate-name").unwrap_or("___");
    name != "___"
        && !name.starts_with("build_script")
        && value("--crate-type") != Some("proc-macro")
}

fn targets(house: &House) -> anyhow::Result<Vec<String>> {
    let seeds = house.root.join(FOLDER).join("seeds");
    let mut names = Vec::new();
    for folder in fs::read_dir(&seeds).with_context(|| seeds.display().to_string())? {
        names.push(folder?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn build(house: &House) -> anyhow::Result<PathBuf> {
    let mut cargo = house.cargo();
    cargo.args(["build", "--package", PACKAGE, "--package", "wick-features"]);
    cargo.args(["--features", "wick-fuzz/libfuzzer", "--bin", PACKAGE]);
    cargo.env("RUSTC_WORKSPACE_WRAPPER", std::env::current_exe()?);
    cargo.env("CARGO_INCREMENTAL", "0");
    tools::run(&mut cargo).context("build the fuzzer")?;
    Ok(house.target.join("debug").join(PACKAGE))
}

fn search(house: &House, fuzzer: &Path, name: &str, seconds: u32) -> anyhow::Result<()> {
    let seeds = house.root.join(FOLDER).join("seeds").join(name);
    let corpus = house.cache.join("fuzz").join(name);
    fs::create_dir_all(&corpus).with_context(|| corpus.display().to_string())?;
    eprintln!("fuzz: {name} for {seconds} s");
    let mut command = Command::new(fuzzer);
    command.env("WICK_FUZZ_TARGET", name).current_dir(&house.root);
    command.args([
        format!("-max_total_time={seconds}"),
        format!("-max_len={MAX_INPUT}"),
        format!("-timeout={INPUT_TIMEOUT}"),
        "-print_final_stats=1".to_owned(),
        // How far it is changes nothing; what it found is still said.
        "-verbosity=0".to_owned(),
        "-print_funcs=0".to_owned(),
    ]);
    let mut artifacts = OsString::from("-artifact_prefix=");
    artifacts.push(seeds.join(""));
    command.arg(artifacts).arg(&corpus).arg(&seeds);
    let searched = tools::run(&mut command);
    searched.with_context(|| {
        format!(
            "{name} breaks a rule. The input is the new file in {}; replay it with\n  \
             cargo test --package {PACKAGE}\nand commit it with the repair",
            house.shown(&seeds)
        )
    })
}

// === impl Options ===

impl Options {
    fn parse(args: &[String]) -> anyhow::Result<Self> {
        let mut options = Self { target: None, seconds: SECONDS };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--seconds" => {
                    let value = args.next().context("--seconds needs a number")?;
                    options.seconds = value.parse().context("--seconds needs a number")?;
                    // libFuzzer takes 0 for "without end".
                    ensure!(options.seconds > 0, "--seconds must be 1 or more");
                }
                flag if flag.starts_with('-') => bail!("`fuzz` has no flag {flag}"),
                name if options.target.is_none() => options.target = Some(name.to_owned()),
                name => bail!("`fuzz` takes one target, and got `{name}` as well"),
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_target_and_a_time_are_read() -> anyhow::Result<()> {
        let parse = |line| Options::parse(&words(line));
        assert_eq!(parse("")?, Options { target: None, seconds: SECONDS });
        let both = Options { target: Some("rest-json".to_owned()), seconds: 5 };
        assert_eq!(parse("rest-json --seconds 5")?, both);
        for wrong in ["a b", "--fast", "--seconds", "--seconds 0", "--seconds x"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        Ok(())
    }

    #[test]
    fn only_code_that_runs_in_the_fuzzer_is_instrumented() {
        let table = [
            ("--crate-name wick_serve --crate-type lib src/lib.rs", true),
            ("--crate-name wick_fuzz --crate-type bin src/main.rs", true),
            ("--crate-name build_script_build --crate-type bin build.rs", false),
            ("--crate-name wick_guest_macros --crate-type proc-macro src/lib.rs", false),
            ("- --crate-name ___ --print=file-names --crate-type bin", false),
            ("-vV", false),
        ];
        for (line, want) in table {
            assert_eq!(is_instrumented(&words(line)), want, "{line}");
        }
        assert!(is_compiler(&words("/toolchain/bin/rustc -vV")));
        assert!(!is_compiler(&words("fuzz rustc")) && !is_compiler(&[]));
    }
}
