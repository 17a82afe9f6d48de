//! `cargo xtask chart`: the chart in `deploy/chart` is linted and rendered by the real Helm, and
//! what comes out is looked at: roles, pod security, and that everything written twice is equal.
//! `--write` writes the kustomize base, which is the chart with its defaults.

mod checks;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::go::{self, Program};
use crate::house::House;
use crate::report::Counts;
use crate::tools;

const HELM: Program =
    Program { name: "helm", package: "helm.sh/helm/v3/cmd/helm", version: "v3.22.0" };

/// Tells tests in a cluster where Helm is.
pub const VARIABLE: &str = "WICK_E2E_HELM";

/// The Kubernetes to render for. A Helm that is built from its module knows none.
const KUBERNETES: &str = "--kube-version=1.35.0";

/// The first line of what is written.
const HEADER: &str =
    "# Written by `cargo xtask chart --write` from deploy/chart/wick; changes here are lost.\n";

/// What the kustomize base has from elsewhere.
const BASE: [&str; 3] = [
    "--set=crds.install=false",
    "--set=runtimeClass.create=false",
    "--set=admissionPolicy.create=false",
];

/// The chart, and Helm to look at it with.
struct Chart<'a> {
    house: &'a House,
    helm: PathBuf,
}

/// Helm's executable; none where there is no Go.
pub fn helm(house: &House) -> anyhow::Result<Option<PathBuf>> {
    go::installed(house, &HELM)
}

/// `args` is what follows `chart`.
pub fn run(house: &House, args: &[String]) -> anyhow::Result<()> {
    let write = args.iter().any(|arg| arg == "--write");
    ensure!(write || args.is_empty(), "usage: cargo xtask chart [--write]");
    if write {
        let helm = helm(house)?.context("there is no `go` to build Helm with")?;
        let chart = Chart { house, helm };
        tools::write_whole(&chart.deploy("kustomize/base/wick.yaml"), chart.base()?.as_bytes())?;
    }
    let counts = step(house)?;
    ensure!(counts.failed == 0, "{counts}");
    println!("{counts}");
    Ok(())
}

/// All checks. Where there is no Go, they are counted as left out.
pub fn step(house: &House) -> anyhow::Result<Counts> {
    let Some(helm) = helm(house)? else {
        eprintln!("chart: there is no `go` to build Helm with: its checks are left out");
        return Ok(Counts { ignored: checks::ALL.len() as u64, ..Counts::default() });
    };
    let chart = Chart { house, helm };
    let mut counts = Counts::default();
    for (name, check) in checks::ALL {
        match check(&chart) {
            Ok(()) => {
                counts.passed += 1;
                eprintln!("ok: chart: {name}");
            }
            Err(error) => {
                counts.failed += 1;
                eprintln!("FAILED: chart: {name}: {error:#}");
            }
        }
    }
    Ok(counts)
}

// === impl Chart ===

impl Chart<'_> {
    /// A path in `deploy`.
    fn deploy(&self, path: &str) -> PathBuf {
        self.house.root.join("deploy").join(path)
    }

    fn folder(&self) -> PathBuf {
        self.deploy("chart/wick")
    }

    /// The files of values to render with beside the defaults.
    fn values(&self) -> anyhow::Result<Vec<PathBuf>> {
        let folder = self.deploy("chart/values");
        let entries =
            fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))?;
        let mut files: Vec<PathBuf> =
            entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.sort();
        ensure!(!files.is_empty(), "{} is empty", folder.display());
        Ok(files)
    }

    fn helm(&self, words: &[&str]) -> Command {
        let mut helm = Command::new(&self.helm);
        helm.args(words).arg(KUBERNETES);
        helm
    }

    /// What Helm makes of a chart with these flags.
    fn text(&self, chart: &Path, flags: &[&str]) -> anyhow::Result<String> {
        let mut helm = self.helm(&["template", "wick", "--namespace=wick-system"]);
        tools::output(helm.args(flags).arg(chart))
    }

    /// The objects of a rendering.
    fn objects(&self, flags: &[&str]) -> anyhow::Result<Vec<Value>> {
        parse(&self.text(&self.folder(), flags)?)
    }

    /// The objects with the defaults and with each file of values, and what they were made with.
    fn renderings(&self) -> anyhow::Result<Vec<(String, Vec<Value>)>> {
        let mut all = vec![("the defaults".to_owned(), self.objects(&[])?)];
        for file in self.values()? {
            let shown = self.house.shown(&file).to_string();
            all.push((shown, self.objects(&[&format!("--values={}", file.display())])?));
        }
        Ok(all)
    }

    /// What the kustomize base should say.
    fn base(&self) -> anyhow::Result<String> {
        Ok(HEADER.to_owned() + &self.text(&self.folder(), &BASE)?)
    }
}

/// The documents of a text, without empty ones.
fn parse(yaml: &str) -> anyhow::Result<Vec<Value>> {
    let mut all: Vec<Value> = serde_saphyr::from_multiple(yaml)
        .map_err(|error| anyhow::anyhow!("read what was rendered: {error}"))?;
    all.retain(|object| !object.is_null());
    Ok(all)
}

/// The objects of one kind.
fn of_kind<'a>(objects: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| object["kind"] == kind)
}
