//! `cargo xtask import`: `wick import` from a real MLflow server and a real S3 server, both from
//! PyPI, in a virtual environment among the caches.

use std::process::{Command, Stdio};

use anyhow::Context as _;

use crate::house::House;
use crate::report::Counts;
use crate::tools::Scratch;
use crate::{clients, counted};

/// Where the pinned servers are listed, and the script that starts and asks them.
const REQUIREMENTS: &str = "e2e/import/requirements.txt";
const SCRIPT: &str = "e2e/import/sources.py";

/// Run the checks, or those whose name contains `name`.
pub fn run(house: &House, name: Option<&str>) -> anyhow::Result<Counts> {
    let python = clients::environment(house, REQUIREMENTS)?;
    let scratch = Scratch::new("import")?;
    let mut script = Command::new(python);
    script.arg(house.root.join(SCRIPT)).arg(house.wick()).arg(house.examples());
    script.arg(house.onnxruntime()).arg(scratch.path()).args(name);
    // Nothing is written into the tree, and no server of this user's is asked.
    script.env("PYTHONDONTWRITEBYTECODE", "1").stdin(Stdio::null());
    counted::script(&mut script).context("import from real servers")
}
