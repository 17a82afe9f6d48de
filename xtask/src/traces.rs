//! Spans of a running wick, received by a collector with OpenTelemetry's own messages.

use std::process::{Command, Stdio};

use anyhow::Context as _;

use crate::house::House;
use crate::report::Counts;
use crate::{clients, counted};

const REQUIREMENTS: &str = "e2e/traces/requirements.txt";
const SCRIPT: &str = "e2e/traces/collector.py";

/// Start the collector, which starts wick; the last line counts its checks.
pub fn run(house: &House) -> anyhow::Result<Counts> {
    let python = clients::environment(house, REQUIREMENTS)?;
    let wick = clients::serve(house, &["passthrough"]);
    let mut script = Command::new(python);
    script.arg(house.root.join(SCRIPT)).arg(wick.get_program()).args(wick.get_args());
    script.env("RUST_LOG", "error").stdin(Stdio::null());
    counted::script(&mut script).context("look at the spans")
}
