//! Packages of Debian that a check needs; installing them needs root.

use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::tools::{self, find_on_path};

/// Install packages.
pub fn install(packages: &[&str]) -> anyhow::Result<()> {
    ensure!(find_on_path("apt-get").is_some(), "there is no apt-get to install {packages:?} with");
    let mut update = Command::new("apt-get");
    tools::output(update.args(["-qq", "update"])).context("read Debian's list of packages")?;
    let mut install = Command::new("apt-get");
    install.args(["-qq", "install", "-y", "--no-install-recommends"]).args(packages);
    install.env("DEBIAN_FRONTEND", "noninteractive");
    tools::output(&mut install).map(drop)
}
