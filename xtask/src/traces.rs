//! Spans of a running wick, received by a collector with OpenTelemetry's own messages.

use anyhow::Context as _;

use crate::house::House;
use crate::report::Counts;
use crate::{clients, counted};

const REQUIREMENTS: &str = "e2e/traces/requirements.txt";
const SCRIPT: &str = "e2e/traces/collector.py";

/// Start the collector, which starts wick; the last line counts its checks.
pub fn run(house: &House) -> anyhow::Result<Counts> {
    let wick = clients::serve(house, &["passthrough"]);
    let mut script = clients::script(house, REQUIREMENTS, SCRIPT)?;
    script.arg(wick.get_program()).args(wick.get_args()).env("RUST_LOG", "error");
    counted::script(&mut script).context("look at the spans")
}
