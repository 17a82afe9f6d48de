//! `cargo xtask registry`: the tests that push to and pull from a real registry. It is Debian's
//! `docker-registry`, unpacked among the caches; nothing is installed or left running.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::cluster::packages;
use crate::counted;
use crate::house::House;
use crate::report::Counts;
use crate::tools;

const PACKAGE: &str = "docker-registry";

/// Where the package has its executable.
const EXECUTABLE: &str = "usr/bin/docker-registry";

/// Tells tests and benchmarks where the registry is.
pub const VARIABLE: &str = "WICK_TEST_REGISTRY";

/// The crates whose tests have a module `real`, ignored otherwise, and the tests' names.
const TESTS: [(&str, &str); 2] = [("wick-registry", "registry"), ("wick-cli", "wick")];
const MODULE: &str = "real::";

/// Run the tests, or those whose name contains `name`.
pub fn run(house: &House, name: Option<&str>) -> anyhow::Result<Counts> {
    let registry = executable(house)?;
    let mut counts = Counts::default();
    for (package, test) in TESTS {
        let mut cargo = house.cargo();
        cargo.args(["test", "-p", package, "-p", "wick-features", "--test", test, "--"]);
        cargo.args(["--ignored", name.unwrap_or(MODULE)]).env(VARIABLE, &registry);
        let mut failures = Vec::new();
        counts = counts.plus(counted::run(&mut cargo, &mut failures)?);
        for failure in failures {
            println!("FAILED: {failure}");
        }
    }
    // What is left out here are tests of other needs.
    Ok(Counts { ignored: 0, ..counts })
}

/// Debian's registry, whatever version apt has: it is printed with the results.
pub fn executable(house: &House) -> anyhow::Result<PathBuf> {
    let folder = house.cache.join("docker-registry");
    let version = folder.join("version");
    if !version.is_file() {
        eprintln!("registry: {PACKAGE} from Debian into {}", folder.display());
        if folder.exists() {
            fs::remove_dir_all(&folder).context("remove a half-made docker-registry")?;
        }
        packages::unpack(&[PACKAGE], &folder)?;
        let policy = tools::output(Command::new("apt-cache").args(["policy", PACKAGE]))?;
        let candidate = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "));
        let candidate = candidate.context("apt-cache knows no version of docker-registry")?;
        tools::write_whole(&version, candidate.as_bytes())?;
    }
    eprintln!("docker-registry {} (Debian)", fs::read_to_string(&version)?.trim());
    let executable = folder.join(EXECUTABLE);
    ensure!(executable.is_file(), "the package has no {EXECUTABLE}: remove {}", folder.display());
    Ok(executable)
}
