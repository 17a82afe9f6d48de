//! Clients written for other servers, unchanged, against a running wick. They live in a
//! virtual environment among the caches.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;

use crate::house::House;
use crate::report::Counts;
use crate::server::Server;
use crate::tools;

/// Where the pinned clients are listed, and the script that drives them.
const REQUIREMENTS: &str = "e2e/clients/requirements.txt";
const SCRIPT: &str = "e2e/clients/tritonclient_rest.py";

/// Longest start of a server with cold caches.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// Serve the examples and run the clients' script; its last line counts its checks.
pub fn run(house: &House) -> anyhow::Result<Counts> {
    let python = environment(house, REQUIREMENTS)?;
    let mut wick = serve(house, &["filetype", "passthrough"]);
    wick.arg("--model-control");
    let server = Server::start(&mut wick, START_TIMEOUT)?;
    let mut script = Command::new(python);
    script.arg(house.root.join(SCRIPT)).arg(server.addr.to_string()).stdin(Stdio::null());
    let output = script.output().context("run the clients")?;
    let text = String::from_utf8_lossy(&output.stdout);
    eprint!("{text}{}", String::from_utf8_lossy(&output.stderr));
    server.stop()?;
    text.lines().rev().find_map(Counts::parse).context("the clients' script told no result")
}

/// `wick run` on examples, on a free port.
pub fn serve(house: &House, examples: &[&str]) -> Command {
    let mut wick = Command::new(house.wick());
    wick.arg("run").args(examples.iter().map(|name| house.examples().join(name)));
    wick.args(["--addr", "127.0.0.1:0", "--output", "json"]);
    wick.arg("--onnxruntime").arg(house.onnxruntime());
    wick.env("RUST_LOG", "error");
    wick
}

/// Python with what a list of pinned packages names. The environment's name tells what is in
/// it, so that a changed list makes a new one.
pub fn environment(house: &House, list: &str) -> anyhow::Result<PathBuf> {
    let path = house.root.join(list);
    let digest = tools::sha256(&path)?.with_context(|| format!("{list} is missing"))?;
    let folder = house.cache.join("venv").join(&digest[..16]);
    let python = folder.join("bin/python");
    let complete = folder.join("complete");
    if complete.is_file() {
        return Ok(python);
    }
    eprintln!("{list} from PyPI into {}", folder.display());
    let mut venv = Command::new("python3");
    tools::output(venv.args(["-m", "venv", "--clear"]).arg(&folder))
        .context("make a virtual environment (Debian: python3-venv)")?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]);
    tools::output(pip.arg(&path))?;
    tools::write_whole(&complete, b"")?;
    Ok(python)
}
