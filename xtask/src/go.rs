//! Programs written in Go, built by Go into the caches, and files of Go's modules; pinned by version.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::house::House;
use crate::report::Seconds;
use crate::tools;

/// A program of a Go module.
pub struct Program {
    pub name: &'static str,
    pub package: &'static str,
    pub version: &'static str,
}

/// The program's executable; none where there is no Go.
pub fn installed(house: &House, program: &Program) -> anyhow::Result<Option<PathBuf>> {
    let Program { name, package, version } = program;
    let Some(go) = tools::find_on_path("go") else { return Ok(None) };
    let folder = house.cache.join(format!("{name}-{version}"));
    let executable = folder.join(name);
    if !executable.is_file() {
        eprintln!("setup: {package}@{version} into {}", folder.display());
        let start = Instant::now();
        let mut install = Command::new(go);
        install.args(["install", &format!("{package}@{version}")]).env("GOBIN", &folder);
        tools::output(&mut install).with_context(|| format!("build {name}"))?;
        if !executable.is_file() {
            bail!("go built no {name} into {}", folder.display());
        }
        eprintln!("setup: built {name} ({})", Seconds(start.elapsed()));
    }
    Ok(Some(executable))
}

/// The folder of a module with all its files, whatever of it is Go; none where there is no Go.
pub fn module(name: &str, version: &str) -> anyhow::Result<Option<PathBuf>> {
    let Some(go) = tools::find_on_path("go") else { return Ok(None) };
    let mut download = Command::new(go);
    download.args(["mod", "download", "-json", &format!("{name}@{version}")]);
    // Of no module, so that none of those here is changed.
    let said = tools::output(download.current_dir("/"))?;
    let said: Value = serde_json::from_str(&said).context("what `go mod download` prints")?;
    let folder = said["Dir"].as_str().with_context(|| format!("go has no folder of {name}"))?;
    Ok(Some(PathBuf::from(folder)))
}
