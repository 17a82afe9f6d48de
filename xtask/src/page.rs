//! `cargo xtask page`: the page of a running wick in a real browser, Debian's Chromium,
//! driven by Playwright from a virtual environment among the caches. Pictures of it are left
//! in the target folder.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::house::House;
use crate::report::Counts;
use crate::server::Server;
use crate::tools::{self, Scratch, find_on_path};
use crate::{clients, counted, debian};

/// Where the driver is pinned, and the script that looks.
const REQUIREMENTS: &str = "e2e/page/requirements.txt";
const SCRIPT: &str = "e2e/page/page.py";

const BROWSER: &str = "chromium";

/// Debian's packages: the browser, and letters to write with.
const PACKAGES: [&str; 2] = ["chromium", "fonts-dejavu-core"];

/// Longest start of a server with cold caches.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// A package whose words would be code if the page let them.
const HOSTILE: &str = "\
[package]
name = \"hostile\"
version = \"1.0.0\"
description = \"<script>window.hacked = true</script><img src=x onerror='window.hacked = true'>\"

[[graph]]
name = \"cls\"
path = \"model.onnx\"
";

/// What this machine lacks for it.
pub fn missing() -> Option<&'static str> {
    find_on_path(BROWSER).is_none().then_some(BROWSER)
}

/// Serve the examples and look at the page; the script's last line counts its checks. With
/// `may_install`, a browser that is missing is added.
pub fn run(house: &House, may_install: bool) -> anyhow::Result<Counts> {
    if let Some(missing) = missing() {
        if !may_install {
            bail!("{missing} not found (Debian: apt-get install {})", PACKAGES.join(" "));
        }
        eprintln!("page: installing {}", PACKAGES.join(", "));
        debian::install(&PACKAGES)?;
    }
    let browser = find_on_path(BROWSER).with_context(|| format!("{BROWSER} is not on PATH"))?;
    let scratch = Scratch::new("page")?;
    let hostile = scratch.path().join("hostile");
    write_hostile(house, &hostile)?;
    let pictures = house.target.join("page");
    fs::create_dir_all(&pictures)?;
    let mut wick = clients::serve(house, &["filetype", "passthrough"]);
    let server = Server::start(wick.arg(&hostile).arg("--model-control"), START_TIMEOUT)?;
    let mut script = clients::script(house, REQUIREMENTS, SCRIPT)?;
    script.arg(server.addr.to_string()).arg(browser);
    let (guarded, token) = serve_guarded(house, &scratch)?;
    script.arg(&hostile).arg(&pictures).arg(guarded.addr.to_string()).arg(token);
    let counts = counted::script(&mut script).context("run the browser's script");
    server.stop()?;
    guarded.stop()?;
    counts
}

/// A server that asks for a token, and the token.
fn serve_guarded(house: &House, scratch: &Scratch) -> anyhow::Result<(Server, String)> {
    let mut wick = Command::new(house.wick());
    wick.args(["token", "browser", "--model", "*", "--output", "json"]);
    let made: serde_json::Value = serde_json::from_str(&tools::output(&mut wick)?)?;
    let word = |key: &str| made[key].as_str().with_context(|| format!("`wick token`: no {key}"));
    let file = scratch.path().join("tokens.toml");
    fs::write(&file, word("entry")?)?;
    let mut wick = clients::serve(house, &["passthrough"]);
    let server = Server::start(wick.arg("--tokens").arg(file), START_TIMEOUT)?;
    Ok((server, word("token")?.to_owned()))
}

fn write_hostile(house: &House, folder: &Path) -> anyhow::Result<()> {
    fs::create_dir(folder)?;
    fs::write(folder.join("wick.toml"), HOSTILE)?;
    let model = house.examples().join("passthrough/model.onnx");
    fs::copy(&model, folder.join("model.onnx"))
        .with_context(|| format!("copy {}", model.display()))
        .map(drop)
}
