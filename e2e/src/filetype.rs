//! The real Magika behind its handler, asked over the Open Inference Protocol.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::http::{Answer, Request, TIMEOUT};

/// A text whose type is `python`.
pub const PYTHON: &str = "import os\n\nprint(os.name)\n";

/// Asks for the type of a text, and gives the label of the first answer.
pub fn classify(addr: SocketAddr, text: &str) -> anyhow::Result<String> {
    classify_within(addr, text, TIMEOUT)
}

/// The same, with another longest wait for each part of the answer.
pub fn classify_within(addr: SocketAddr, text: &str, wait: Duration) -> anyhow::Result<String> {
    let answer = ask_within(addr, text, wait)?;
    ensure!(answer.status == 200, "status {}: {}", answer.status, answer.text());
    let answer: Value = serde_json::from_slice(&answer.body)?;
    let outputs = answer["outputs"].as_array().context("no outputs")?;
    let label = outputs.iter().find(|output| output["name"] == "label").context("no label")?;
    Ok(label["data"][0].as_str().context("no text")?.to_owned())
}

/// Asks for the type of a text, and gives whatever is answered.
pub fn ask(addr: SocketAddr, text: &str) -> anyhow::Result<Answer> {
    ask_within(addr, text, TIMEOUT)
}

fn ask_within(addr: SocketAddr, text: &str, wait: Duration) -> anyhow::Result<Answer> {
    let header = json!({
        "inputs": [{"name": "bytes", "datatype": "UINT8", "shape": [text.len()],
            "parameters": {"binary_data_size": text.len()}}],
    })
    .to_string();
    let length = header.len().to_string();
    let body = [header.as_bytes(), text.as_bytes()].concat();
    let request = Request {
        method: "POST",
        path: "/v2/models/filetype/infer",
        headers: &[("Inference-Header-Content-Length", &length)],
        body: &body,
    };
    request.send_within(addr, wait)
}
