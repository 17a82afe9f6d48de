//! Debian's packages for a cluster: a few are installed, and those that bring a service are
//! only unpacked. Knows apt and dpkg; what is needed is in `pins`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

use super::pins;
use crate::tools::{self, find_on_path};

/// Programs that every system of this kind has, and kubectl, which no Debian package brings.
const PROGRAMS: [(&str, &str); 7] = [
    ("kubectl", "see https://kubernetes.io/docs/tasks/tools"),
    ("go", "see https://go.dev/doc/install; the cluster is built from Go modules"),
    ("gcc", "Debian: apt-get install gcc"),
    ("setsid", "Debian: apt-get install util-linux"),
    ("unshare", "Debian: apt-get install util-linux"),
    ("nsenter", "Debian: apt-get install util-linux"),
    ("mount", "Debian: apt-get install mount"),
];

/// Install what is missing if this is root on Debian; else say what to install.
pub fn ensure_installed() -> anyhow::Result<()> {
    for (program, how) in PROGRAMS {
        ensure!(find_on_path(program).is_some(), "`{program}` is not on PATH: {how}");
    }
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    let packages = missing.join(" ");
    let apt = find_on_path("apt-get").is_some();
    ensure!(
        apt && super::is_root(),
        "a cluster needs {packages}: install them (Debian: apt-get install {packages})"
    );
    eprintln!("cluster: installing {packages}");
    update()?;
    let mut install = Command::new("apt-get");
    install.args(["-qq", "install", "-y", "--no-install-recommends"]).args(&missing);
    tools::output(install.env("DEBIAN_FRONTEND", "noninteractive")).map(drop)
}

/// Download packages and unpack them into `folder`; nothing of them is configured or started.
pub fn unpack(names: &[&str], folder: &Path) -> anyhow::Result<()> {
    ensure!(
        find_on_path("apt-get").is_some() && find_on_path("dpkg").is_some(),
        "{} are taken from Debian, and apt-get or dpkg is not on PATH",
        names.join(" and ")
    );
    let debs = folder.join("debs");
    fs::create_dir_all(&debs).with_context(|| format!("create {}", debs.display()))?;
    let download = || {
        let mut apt = Command::new("apt-get");
        tools::output(apt.args(["-qq", "download"]).args(names).current_dir(&debs))
    };
    // The list of packages may be old, or not there at all.
    download().or_else(|_| update().and_then(|()| download()))?;
    for entry in fs::read_dir(&debs)? {
        tools::run(Command::new("dpkg").arg("-x").arg(entry?.path()).arg(folder))?;
    }
    fs::remove_dir_all(&debs).with_context(|| format!("remove {}", debs.display()))
}

fn missing() -> Vec<&'static str> {
    let there = |what: &str| match what.starts_with('/') {
        true => Path::new(what).exists(),
        false => find_on_path(what).is_some(),
    };
    pins::INSTALLED.iter().filter(|(what, _)| !there(what)).map(|(_, package)| *package).collect()
}

fn update() -> anyhow::Result<()> {
    let mut update = Command::new("apt-get");
    tools::output(update.args(["-qq", "update"])).map(drop).context("read Debian's package list")
}
