//! The arm64 executable, built here and run under qemu-user: it must start, load a package
//! and answer one real request. How fast it is says nothing.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use crate::house::House;
use crate::server::Server;
use crate::tools::{self, find_on_path};
use crate::{debian, http, setup};

const TARGET: &str = "aarch64-unknown-linux-gnu";
const LINKER: &str = "aarch64-linux-gnu-gcc";

/// The static one runs anywhere; Debian's other package is dynamic and as good.
const EMULATORS: [&str; 2] = ["qemu-aarch64-static", "qemu-aarch64"];

/// Where Debian's cross compiler keeps the C library of its target.
const SYSROOT: &str = "/usr/aarch64-linux-gnu";

/// Address space that the emulated program gets. Emulators before qemu 8 keep an entry for
/// each page of it, so the terabytes that a pool of instances reserves would fill the
/// memory; with this, wick makes instances one by one, as on a small board.
const ADDRESS_SPACE: &str = "64G";

/// Debian's packages for the above.
const PACKAGES: [&str; 3] = ["qemu-user-static", "gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"];

/// Longest start: the component is compiled to native code under emulation.
const START_TIMEOUT: Duration = Duration::from_secs(300);

/// A Python script: what the `filetype` example must recognise.
const SAMPLE: &str = include_str!("../../examples/filetype/tests/samples/thermostat.py");

/// Whether this machine has what the check needs; if not, what is missing.
pub fn missing() -> Option<String> {
    let mut missing = Vec::new();
    if find_on_path(LINKER).is_none() {
        missing.push(LINKER);
    }
    if emulator().is_none() {
        missing.push(EMULATORS[0]);
    }
    (!missing.is_empty()).then(|| missing.join(" and "))
}

/// Set up, build, run, ask. With `may_install`, system packages that are missing are added.
pub fn run(house: &House, may_install: bool) -> anyhow::Result<()> {
    setup::run(house)?;
    if let Some(missing) = missing() {
        if !may_install {
            bail!("{missing} not found (Debian: apt-get install {})", PACKAGES.join(" "));
        }
        eprintln!("arm64: installing {}", PACKAGES.join(", "));
        debian::install(&PACKAGES)?;
    }
    setup::add_target(house, TARGET)?;
    build(house)?;
    answer(house)
}

fn build(house: &House) -> anyhow::Result<()> {
    eprintln!("arm64: building wick for {TARGET}");
    let mut cargo = house.cargo();
    // With the features of the whole workspace, macros and build scripts are built already.
    cargo.args(["build", "--package", "wick-cli", "--package", "wick-features"]);
    cargo.args(["--bin", "wick", "--target", TARGET]);
    cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", LINKER);
    cargo.env("CC_aarch64_unknown_linux_gnu", LINKER);
    tools::run(&mut cargo)
}

fn answer(house: &House) -> anyhow::Result<()> {
    let emulator = emulator().context("no emulator")?;
    let scratch = tools::Scratch::new("arm64")?;
    let mut wick = Command::new(emulator);
    wick.args(["-R", ADDRESS_SPACE, "-L", SYSROOT])
        .arg(house.target.join(TARGET).join("debug").join("wick"));
    wick.arg("run").arg(house.examples().join("filetype"));
    wick.args(["--addr", "127.0.0.1:0", "--output", "json"]);
    // Its own cache and data: native code and libraries of this machine are not for it.
    wick.env("XDG_CACHE_HOME", scratch.path()).env("XDG_DATA_HOME", scratch.path());
    eprintln!("arm64: starting it under emulation");
    let server = Server::start(&mut wick, START_TIMEOUT)?;
    let label = ask(&server)?;
    ensure!(label == "python", "a Python script was taken for `{label}`");
    let status = server.stop()?;
    ensure!(status.success(), "it ended with {status} after SIGTERM");
    eprintln!("arm64: it answered `{label}` and stopped");
    Ok(())
}

fn ask(server: &Server) -> anyhow::Result<String> {
    let data = SAMPLE.as_bytes();
    let input = serde_json::json!({
        "name": "bytes", "datatype": "UINT8", "shape": [data.len()], "data": data
    });
    let request = serde_json::json!({ "inputs": [input] }).to_string();
    let answer = http::send(server.addr, "/v2/models/filetype/infer", Some(&request))?;
    let text = String::from_utf8_lossy(&answer.body);
    ensure!(answer.status == 200, "status {}: {text}", answer.status);
    let answer: serde_json::Value = serde_json::from_slice(&answer.body)?;
    let outputs = answer["outputs"].as_array().context("no outputs")?;
    let label = outputs.iter().find(|output| output["name"] == "label").context("no label")?;
    Ok(label["data"][0].as_str().context("a label that is no string")?.to_owned())
}

fn emulator() -> Option<std::path::PathBuf> {
    EMULATORS.into_iter().find_map(find_on_path)
}
