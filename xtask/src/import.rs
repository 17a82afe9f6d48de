//! `cargo xtask import`: `wick import` from real servers. MLflow and one that speaks S3 come from
//! PyPI, in a virtual environment among the caches; one that speaks Google Cloud Storage is built
//! by Go, and its check is left out where there is none.

use anyhow::Context as _;

use crate::go::{self, Program};
use crate::house::House;
use crate::report::Counts;
use crate::tools::Scratch;
use crate::{clients, counted};

/// Where the pinned servers are listed, and the script that starts and asks them.
const REQUIREMENTS: &str = "e2e/import/requirements.txt";
const SCRIPT: &str = "e2e/import/sources.py";

const GCS: Program = Program {
    name: "fake-gcs-server",
    package: "github.com/fsouza/fake-gcs-server",
    version: "v1.56.1",
};

/// Run the checks, or those whose name contains `name`.
pub fn run(house: &House, name: Option<&str>) -> anyhow::Result<Counts> {
    let gcs = go::installed(house, &GCS)?;
    if gcs.is_none() {
        eprintln!("import: there is no `go` to build {} with: its check is left out", GCS.name);
    }
    let scratch = Scratch::new("import")?;
    let mut script = clients::script(house, REQUIREMENTS, SCRIPT)?;
    script.arg(house.wick()).arg(house.examples());
    script.arg(house.onnxruntime()).arg(scratch.path());
    script.arg(gcs.unwrap_or_else(|| "-".into())).args(name);
    counted::script(&mut script).context("import from real servers")
}
