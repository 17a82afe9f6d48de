//! Clients written for other servers, unchanged, against a running wick. They live in a
//! virtual environment among the caches.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;

use crate::counted;
use crate::grpcurl;
use crate::house::House;
use crate::report::Counts;
use crate::server::Server;
use crate::tools;

/// Scripts that drive clients, each with the list of what it needs. Lists are apart where
/// their pins contradict each other.
const SCRIPTS: [(&str, &str); 4] = [
    ("e2e/clients/requirements.txt", "e2e/clients/tritonclient_rest.py"),
    ("e2e/clients/requirements.txt", "e2e/clients/rest.py"),
    ("e2e/clients/requirements.txt", "e2e/clients/tritonclient_grpc.py"),
    ("e2e/clients/kserve.txt", "e2e/clients/kserve_clients.py"),
];

/// Longest start of a server with cold caches.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// Serve the examples and run the clients' scripts; each one's last line counts its checks.
pub fn run(house: &House) -> anyhow::Result<Counts> {
    let mut wick = serve(house, &["filetype", "passthrough"]);
    wick.arg("--model-control");
    let server = Server::start(&mut wick, START_TIMEOUT)?;
    let mut all = Counts::default();
    for (list, name) in SCRIPTS {
        let mut script = script(house, list, name)?;
        let counts = counted::script(script.arg(server.addr.to_string()));
        all = all.plus(counts.with_context(|| format!("run {name}"))?);
    }
    all = all.plus(grpcurl::run(house, &server.addr.to_string())?);
    server.stop()?;
    Ok(all)
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

/// A script of checks with the packages of a pinned list; it runs them by `e2e/checks.py`.
pub fn script(house: &House, requirements: &str, name: &str) -> anyhow::Result<Command> {
    let mut script = Command::new(environment(house, requirements)?);
    script.arg(house.root.join(name)).env("PYTHONPATH", house.root.join("e2e"));
    // Nothing is written into the tree.
    script.env("PYTHONDONTWRITEBYTECODE", "1").stdin(Stdio::null());
    Ok(script)
}

/// Python with the pinned clients. The environment's name tells what is in it, so that a
/// changed list makes a new one.
pub fn environment(house: &House, requirements: &str) -> anyhow::Result<PathBuf> {
    let list = house.root.join(requirements);
    let digest = tools::sha256(&list)?.with_context(|| format!("{requirements} is missing"))?;
    let folder = house.cache.join("venv").join(&digest[..16]);
    let python = folder.join("bin/python");
    let complete = folder.join("complete");
    if complete.is_file() {
        return Ok(python);
    }
    eprintln!("clients: {requirements} from PyPI into {}", folder.display());
    let mut venv = Command::new("python3");
    tools::output(venv.args(["-m", "venv", "--clear"]).arg(&folder))
        .context("make a virtual environment (Debian: python3-venv)")?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]);
    tools::output(pip.arg(&list))?;
    tools::write_whole(&complete, b"")?;
    Ok(python)
}
