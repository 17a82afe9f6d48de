//! Packages of Debian that a check needs; installing them needs root.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::tools::{self, Scratch, find_on_path};

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

/// The keys that sign Debian's archive.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Fetch packages of a release and of Debian 12, which it completes, and unpack them below
/// `root`. Nothing is installed.
pub fn unpack(packages: &[&str], release: &str, root: &Path) -> anyhow::Result<()> {
    ensure!(find_on_path("apt-get").is_some(), "there is no apt-get to fetch {packages:?} with");
    let scratch = Scratch::new("debian")?;
    let folder = scratch.path();
    let sources = ["bookworm", release].map(|release| {
        format!("deb [signed-by={KEYRING}] http://deb.debian.org/debian {release} main\n")
    });
    fs::write(folder.join("sources.list"), sources.concat())?;
    fs::create_dir_all(folder.join("lists/partial"))?;
    let apt = |arguments: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.current_dir(folder).args(["-qq", "-oDir::Etc::SourceParts=/dev/null"]);
        apt.args(["-oAPT::Sandbox::User=root", "-t", release]);
        for (option, name) in [("Etc::SourceList", "sources.list"), ("State::Lists", "lists")] {
            apt.arg(format!("-oDir::{option}={}", folder.join(name).display()));
        }
        tools::output(apt.args(arguments)).map(drop)
    };
    apt(&["update"]).context("read Debian's list of packages")?;
    apt(&[&["download"], packages].concat())?;
    fs::create_dir_all(root)?;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            tools::output(Command::new("dpkg").arg("-x").arg(&path).arg(root))?;
        }
    }
    Ok(())
}
