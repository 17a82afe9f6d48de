//! `cargo xtask mqtt`: paho devices against real nodes over a real mosquitto. The broker is
//! Debian's, unpacked among the caches; nothing is installed or left running.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;

use crate::cluster::packages;
use crate::house::House;
use crate::report::Counts;
use crate::tools::{self, Scratch};
use crate::{clients, counted};

/// Where the pinned devices are listed, and the script that drives them.
const REQUIREMENTS: &str = "e2e/mqtt/requirements.txt";
const SCRIPT: &str = "e2e/mqtt/devices.py";

/// The broker, its command line, and the libraries of Debian 12 that other packages seldom
/// bring.
const PACKAGES: [&str; 8] = [
    "mosquitto",
    "mosquitto-clients",
    "libmosquitto1",
    "libcjson1",
    "libdlt2",
    "libev4",
    "libwebsockets17",
    "libwrap0",
];

/// Run the checks, or those whose name contains `name`.
pub fn run(house: &House, name: Option<&str>) -> anyhow::Result<Counts> {
    let mosquitto = mosquitto(house)?;
    let version = fs::read_to_string(mosquitto.join("version"))?;
    println!("mosquitto {} (Debian)", version.trim());
    let scratch = Scratch::new("mqtt")?;
    let mut script = clients::script(house, REQUIREMENTS, SCRIPT)?;
    script.arg(house.wick()).arg(house.examples());
    script.arg(house.onnxruntime()).arg(&mosquitto).arg(scratch.path()).args(name);
    counted::script(&mut script)
}

/// Debian's mosquitto, whatever version apt has: it is printed with the results.
pub fn mosquitto(house: &House) -> anyhow::Result<PathBuf> {
    let folder = house.cache.join("mosquitto");
    let version = folder.join("version");
    if !version.is_file() {
        eprintln!("mqtt: {} from Debian into {}", PACKAGES.join(" "), folder.display());
        if folder.exists() {
            fs::remove_dir_all(&folder).context("remove a half-made mosquitto")?;
        }
        packages::unpack(&PACKAGES, &folder)?;
        let policy = tools::output(Command::new("apt-cache").args(["policy", "mosquitto"]))?;
        let candidate = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "));
        let candidate = candidate.context("apt-cache knows no version of mosquitto")?;
        tools::write_whole(&version, candidate.as_bytes())?;
    }
    Ok(folder)
}
