//! `cargo xtask test`: set-up, then every check and every test, cheap ones first. It stops
//! at the first step that fails, and ends with one line that counts.

use std::env;

use anyhow::{Context as _, bail, ensure};

use crate::house::House;
use crate::report::Report;
use crate::tools::{self, find_on_path};
use crate::{
    arm64, bench, chart, clients, cluster, counted, demo, devices, e2e, fleet, fuzz, import, mqtt,
    page,
};
use crate::{registry, setup, tidy, traces};

/// Sites of the demo's fleet when it is a test.
const DEMO_SITES: usize = 5;

/// What to test.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// Also checks that install system packages or need root.
    pub cluster: bool,
    /// Only tests whose name contains this, and no checks.
    pub filter: Option<String>,
}

// === impl Options ===

impl Options {
    pub fn parse(args: &[String]) -> anyhow::Result<Self> {
        let mut options = Self { cluster: false, filter: None };
        for arg in args {
            match arg.as_str() {
                "--cluster" => options.cluster = true,
                flag if flag.starts_with('-') => bail!("`test` has no flag {flag}"),
                name if options.filter.is_none() => options.filter = Some(name.to_owned()),
                name => bail!("`test` takes one name, and got `{name}` as well"),
            }
        }
        Ok(options)
    }
}

/// Run everything, print the summary, and fail if a step failed.
pub fn run(house: &House, options: &Options) -> anyhow::Result<()> {
    let ci = env::var("CI").is_ok_and(|value| !value.is_empty() && value != "false");
    let mut report = Report::new();
    let done = match &options.filter {
        Some(name) if name == "devices" => devices(house, &mut report),
        Some(filter) => some(house, &mut report, filter),
        None => all(house, &mut report, options.cluster || ci, ci),
    };
    println!("{report}");
    done
}

/// Only what compares devices.
fn devices(house: &House, report: &mut Report) -> anyhow::Result<()> {
    report.check("setup", || setup::run(house))?;
    report.check("build", || bench::build(house))?;
    report.step("devices", || devices::run(house))
}

fn some(house: &House, report: &mut Report, filter: &str) -> anyhow::Result<()> {
    report.check("setup", || setup::run(house))?;
    report.leave_out(format!("every check, and tests whose name does not contain `{filter}`"));
    tests(house, report, &[filter])
}

/// `machine` permits what changes the machine; `ci` makes a left out step a failure.
fn all(house: &House, report: &mut Report, machine: bool, ci: bool) -> anyhow::Result<()> {
    report.check("format", || {
        let formatted = tools::run(house.cargo().args(["fmt", "--all", "--check"]));
        formatted.context("run `cargo fmt`")
    })?;
    report.check("tidy", || tidy::run(house))?;
    report.check("setup", || setup::run(house))?;
    report.check("clippy", || {
        let mut cargo = house.cargo();
        cargo.args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]);
        tools::run(&mut cargo)
    })?;
    report.check("docs", || {
        let mut cargo = house.cargo();
        cargo.args(["doc", "--workspace", "--no-deps", "--document-private-items"]);
        tools::run(cargo.env("RUSTDOCFLAGS", "-D warnings"))
    })?;
    if machine && is_root() {
        // The shim's tests run ordinary containers beside packages, and so need runc.
        report.check("cluster binaries", || cluster::build(house))?;
    }
    tests(house, report, &[])?;
    report.check("fuzz", || fuzz::step(house))?;
    report.check("build", || bench::build(house))?;
    report.step("chart", || chart::step(house))?;
    report.step("clients", || clients::run(house))?;
    report.step("traces", || traces::run(house))?;
    report.step("import", || import::run(house, None))?;
    report.step("devices", || devices::run(house))?;
    system(house, report, machine, ci)
}

/// Checks with programs that a machine may lack.
fn system(house: &House, report: &mut Report, machine: bool, ci: bool) -> anyhow::Result<()> {
    if find_on_path("cargo-deny").is_some() {
        report.check("cargo deny", || {
            let check = ["deny", "--offline", "check", "bans", "licenses", "sources"];
            tools::run(house.cargo().args(check))
        })?;
    } else {
        // Not a failure in CI: tidy checks the same lists.
        report.leave_out("cargo deny (not installed; tidy has checked deny.toml's lists)");
    }
    if machine {
        report.step("mqtt", || mqtt::run(house, None))?;
        report.step("registry", || registry::run(house, None))?;
        report.step("fleet", || fleet::run(house, None))?;
        report.check("demo of a fleet", || demo::fleet::play(house, DEMO_SITES).map(drop))?;
    } else {
        leave_out(report, ci, "devices over a real MQTT broker (needs --cluster)")?;
        leave_out(report, ci, "images at a real registry (needs --cluster)")?;
        leave_out(report, ci, "a fleet over a real MQTT broker (needs --cluster)")?;
    }
    let root = is_root();
    if machine && root {
        for suite in ["harness", "shim", "operator"] {
            report.step(&format!("e2e {suite}"), || e2e::step(house, suite))?;
        }
        report.check("shim with containerd", || e2e::lifecycle(house))?;
        report.nothing_ignored();
    } else {
        leave_out(report, ci, "pods in a Kubernetes cluster (needs root, and --cluster)")?;
    }
    match page::missing() {
        Some(missing) if !(machine && root) => {
            leave_out(report, ci, &format!("the page in a browser ({missing} not found)"))?;
        }
        _ => report.step("page", || page::run(house, machine && root))?,
    }
    match arm64::missing() {
        Some(missing) if !(machine && root) => {
            leave_out(report, ci, &format!("arm64 ({missing} not found)"))
        }
        _ => report.check("arm64", || arm64::run(house, machine && root)),
    }
}

fn leave_out(report: &mut Report, ci: bool, what: &str) -> anyhow::Result<()> {
    report.leave_out(what);
    ensure!(!ci, "left out, which is a failure in CI: {what}");
    Ok(())
}

/// All tests of the workspace, documentation included, or those that match.
fn tests(house: &House, report: &mut Report, filter: &[&str]) -> anyhow::Result<()> {
    let mut failures = Vec::new();
    let done = report.step("tests", || {
        let mut cargo = house.cargo();
        cargo.args(["test", "--workspace", "--no-fail-fast"]).args(filter);
        counted::run(&mut cargo, &mut failures)
    });
    for name in failures {
        report.failure(name);
    }
    done
}

fn is_root() -> bool {
    tools::output(std::process::Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> anyhow::Result<Options> {
        Options::parse(&args.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn flags_and_a_name_are_read() -> anyhow::Result<()> {
        assert_eq!(parse(&[])?, Options { cluster: false, filter: None });
        let both = Options { cluster: true, filter: Some("wasm".to_owned()) };
        assert_eq!(parse(&["wasm", "--cluster"])?, both);
        assert!(parse(&["--fast"]).is_err());
        assert!(parse(&["a", "b"]).is_err());
        Ok(())
    }
}
