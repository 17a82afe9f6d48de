//! `cargo xtask e2e SUITE`: start a cluster, run the tests of `e2e/tests/SUITE*.rs` in it,
//! stop it. With `WICK_E2E_KUBECONFIG` set, that cluster is used and none is started.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

use crate::cluster::pins;
use crate::house::House;
use crate::report::Counts;
use crate::{bench, chart, cluster, counted, devices, gitops, mqtt, registry, setup, shim, tools};

/// Names an existing cluster by its kubeconfig.
const EXISTING: &str = "WICK_E2E_KUBECONFIG";

/// The suite whose tests install the chart.
const CHART_SUITE: &str = "operator";

/// The suite whose node has a driver of devices.
const DEVICES_SUITE: &str = "shim";

/// The module of tests that start clusters of their own.
const OWN: &str = "own::";

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Options {
    suite: String,
    /// Only tests whose name contains this.
    filter: Option<String>,
    /// Once with each supported containerd.
    matrix: bool,
    /// Flags for `cluster up`, such as `--containerd 1.7.35`.
    cluster: Vec<String>,
}

/// Run a suite; `args` is what follows `e2e`.
pub fn run(house: &House, args: &[String]) -> anyhow::Result<()> {
    let options = Options::parse(args)?;
    if !may_run(&options.suite)? {
        return Ok(());
    }
    setup::run(house)?;
    bench::build(house)?;
    let containerds: &[&str] = if options.matrix { &pins::CONTAINERD_MATRIX } else { &[] };
    if containerds.is_empty() {
        return suite(house, &options).map(|counts| eprintln!("e2e: {counts}"));
    }
    for version in containerds {
        let mut flags = options.cluster.clone();
        flags.extend(["--containerd".to_owned(), (*version).to_owned()]);
        let options = Options { cluster: flags, ..options.clone() };
        let counts = suite(house, &options).with_context(|| format!("containerd {version}"))?;
        eprintln!("e2e: containerd {version}: {counts}");
    }
    Ok(())
}

/// One suite as a step of `cargo xtask test`, which has set up and built everything.
pub fn step(house: &House, name: &str) -> anyhow::Result<Counts> {
    suite(house, &Options::parse(&[name.to_owned()])?)
}

/// The shim's own tests with a containerd that runs nothing else: its restarts, and the end
/// of its shims.
pub fn lifecycle(house: &House) -> anyhow::Result<()> {
    let mut cargo = house.cargo();
    cargo.args(["test", "-p", shim::CRATE, "-p", "wick-features", "--test", "lifecycle"]);
    cargo.args(["--", "--ignored"]).env("WICK_TEST_SHIM", shim::path(house));
    tools::run(cargo.env("WICK_TEST_CONTAINERD", cluster::containerd(house)?))
}

/// Whether there is a cluster, or one can be made.
fn may_run(suite: &str) -> anyhow::Result<bool> {
    if env::var_os(EXISTING).is_some() || cluster::is_root() {
        return Ok(true);
    }
    let what = format!("e2e {suite}: left out, since a cluster needs root");
    ensure!(!is_ci(), "{what}; that is a failure in CI");
    eprintln!("{what} (or {EXISTING}, for one that exists)");
    Ok(false)
}

fn suite(house: &House, options: &Options) -> anyhow::Result<Counts> {
    let suite = &options.suite;
    let targets = targets(suite, suites(house)?)?;
    // Before the cluster, which would only wait for the compiler.
    shim::build(house)?;
    tools::run(cargo_test(house, &targets)?.arg("--no-run"))?;
    let mut test = cargo_test(house, &targets)?;
    test.args(["--", "--ignored", "--test-threads=1"]).args(&options.filter);
    if env::var_os(EXISTING).is_some() {
        eprintln!("e2e {suite}: {EXISTING} is set: tests that start clusters are left out");
        return counted::run(test.args(["--skip", OWN]), &mut Vec::new());
    }
    let name = format!("e2e-{}", suite.replace('_', "-"));
    let mut up = vec![name.clone()];
    up.extend(options.cluster.iter().cloned());
    if suite == DEVICES_SUITE {
        up.extend(devices::of_a_node(house)?);
    }
    cluster::up_with(house, &up)?;
    let mut failures = Vec::new();
    let done = counted::run(test.env("WICK_E2E_CLUSTER", &name), &mut failures);
    let stopped = cluster::down(house, &name);
    // The tests that need no cluster are left out here, and were run with all others.
    let counts = Counts { ignored: 0, ..done? };
    stopped?;
    ensure!(counts.failed == 0, "e2e {suite}: failed: {}", failures.join(", "));
    Ok(counts)
}

// === impl Options ===

impl Options {
    fn parse(args: &[String]) -> anyhow::Result<Self> {
        let flags = args.iter().position(|arg| arg.starts_with("--")).unwrap_or(args.len());
        let (words, flags) = args.split_at(flags);
        let (suite, filter) = match words {
            [suite] => (suite.clone(), None),
            [suite, filter] => (suite.clone(), Some(filter.clone())),
            _ => bail!("usage: cargo xtask e2e SUITE [NAME] [--matrix | --containerd VERSION]"),
        };
        let matrix = flags.iter().any(|flag| flag == "--matrix");
        let cluster = flags.iter().filter(|flag| *flag != "--matrix").cloned().collect();
        Ok(Self { suite, filter, matrix, cluster })
    }
}

/// `cargo test` of a suite's files. The second package is there for its features, with
/// which everything is compiled already.
fn cargo_test(house: &House, targets: &[String]) -> anyhow::Result<Command> {
    let mut cargo = house.cargo();
    cargo.args(["test", "-p", "wick-e2e", "-p", "wick-features"]);
    cargo.args(targets.iter().flat_map(|target| ["--test", target]));
    cargo.env("WICK_XTASK", this_program()?);
    cargo.env("WICK_BIN", house.wick());
    cargo.env("WICK_E2E_PROGRAMS", cluster::programs(house)?);
    cargo.env(registry::VARIABLE, cluster::registry(house)?);
    if targets.iter().any(|target| target.starts_with(CHART_SUITE)) {
        cargo.env(chart::VARIABLE, chart::helm(house)?.context("there is no `go` for Helm")?);
        cargo.env("WICK_TEST_MOSQUITTO", mqtt::mosquitto(house)?);
        cargo.env(gitops::VARIABLE, gitops::definitions()?);
    }
    Ok(cargo)
}

/// The path of this program. If cargo has replaced it since, the new one is as good.
pub fn this_program() -> anyhow::Result<PathBuf> {
    let path = env::current_exe().context("find this program")?;
    let path = path.to_string_lossy().into_owned();
    Ok(PathBuf::from(path.trim_end_matches(" (deleted)")))
}

/// The test files of a suite: the one of its name, and those that continue it.
fn targets(suite: &str, mut all: Vec<String>) -> anyhow::Result<Vec<String>> {
    let known = all.join(", ");
    let prefix = format!("{suite}_");
    all.retain(|target| target == suite || target.starts_with(&prefix));
    ensure!(!all.is_empty(), "there is no suite {suite}: there are {known}");
    Ok(all)
}

/// The test files of the crate, by their names.
fn suites(house: &House) -> anyhow::Result<Vec<String>> {
    let folder = house.root.join("e2e/tests");
    let entries = fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))?;
    let paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let rust = paths.iter().filter(|path| path.extension().is_some_and(|ext| ext == "rs"));
    let mut names: Vec<String> =
        rust.filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned())).collect();
    names.sort();
    Ok(names)
}

fn is_ci() -> bool {
    env::var("CI").is_ok_and(|value| !value.is_empty() && value != "false")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_is_its_file_and_those_that_continue_it() {
        let all = ["harness", "shim", "shim_limits", "shimmer"].map(str::to_owned).to_vec();
        let found = targets("shim", all.clone()).ok();
        assert_eq!(found, Some(vec!["shim".to_owned(), "shim_limits".to_owned()]));
        assert!(targets("none", all).is_err());
    }

    #[test]
    fn flags_are_left_to_the_cluster() -> anyhow::Result<()> {
        let words = ["shim", "logs", "--containerd", "1.7.35"].map(str::to_owned);
        let options = Options::parse(&words)?;
        assert_eq!((options.suite.as_str(), options.filter.as_deref()), ("shim", Some("logs")));
        assert_eq!(options.cluster, ["--containerd", "1.7.35"]);
        assert!(!options.matrix);
        let words = ["shim", "--matrix"].map(str::to_owned);
        assert!(Options::parse(&words)?.matrix);
        assert!(Options::parse(&[]).is_err());
        Ok(())
    }
}
