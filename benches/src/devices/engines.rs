//! A start that finds an engine, beside the first, which compiles it.

use std::fs;
use std::time::Instant;

use anyhow::ensure;
use serde_json::json;
use wick_testing::onnx;

use super::{GAIN, Lab};
use crate::bar::report;
use crate::stats::{median, round};

/// Starts of each kind.
const STARTS: usize = 3;

/// 24 convolutions of 128 by 128 channels: 14 MB of an engine.
const NET: (usize, i64, i64) = (24, 128, 28);

pub(super) fn run(lab: &Lab<'_>) -> anyhow::Result<()> {
    let model = lab.setup.folder("engine")?.join("net.onnx");
    fs::write(&model, onnx::quantised_net(NET.0, NET.1, NET.2))?;
    let package = lab.package("net", &model, "npu", 1.0)?;
    let (mut first, mut cached) = (Vec::new(), Vec::new());
    for round in 0..STARTS {
        let cache = lab.setup.folder(&format!("engines-{round}"))?;
        for times in [&mut first, &mut cached] {
            let mut wick = lab.wick();
            wick.env("WICK_QNN_EMULATOR", "1").env("XDG_CACHE_HOME", &cache);
            let began = Instant::now();
            let output = wick.args(["run", "--explain"]).arg(&package).output()?;
            times.push(began.elapsed().as_secs_f64());
            let text = String::from_utf8_lossy(&output.stdout);
            ensure!(text.contains("runs on npu by QNNExecutionProvider"), "{text}");
        }
        eprintln!("devices: {:.2} s, then {:.2} s", first[round], cached[round]);
    }
    let (first, cached) = (median(&first), median(&cached));
    let detail = json!({
        "provider": "qnn", "device": "emulator", "first_s": round(first), "cached_s": round(cached),
        "starts": STARTS, "model_bytes": fs::metadata(&model)?.len(),
    });
    report(GAIN, first / cached, "ratio", detail);
    Ok(())
}
