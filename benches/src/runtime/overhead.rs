//! What HTTP, the handler and the host add to one inference.
//!
//! Three callers take turns in rounds: ONNX Runtime called directly, the same model
//! as a pass-through package, and through a handler component. Overhead is the
//! difference of a round's medians, so that a slow phase of the machine hits all.
//!
//! A fourth caller shows what the machine itself adds: the same bytes to and from a bare
//! thread that runs the inference, without HTTP and without wick.
//!
//! The direct caller never sleeps, so the client polls its socket: its own wake-up is
//! no part of the server. The detail has the same figures for a client that sleeps,
//! which add what the kernel needs to wake it.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use serde_json::json;

use crate::bar;
use crate::bare::{Bare, BareClient};
use crate::direct::{Direct, Floor, Input};
use crate::http::{Client, Prepared, Wait};
use crate::packages;
use crate::server::Server;
use crate::setup::Setup;
use crate::stats::{median, round};

use super::load;

/// Rounds, and inferences of each caller in a round. Rounds are short: a shared machine is
/// slower by a tenth for seconds at a time, and a round in which it changes says nothing. The
/// median of five has nothing of the first, whose caches hold another caller's weights.
const ROUNDS: usize = 75;
const PER_ROUND: usize = 5;

/// Threads of one inference, the same for all callers. One, since the figure is
/// what wick adds, and two threads on a shared machine vary more than that.
const THREADS: usize = 1;

/// Bytes of the bare server's answer: about what an answer of Magika has.
const BARE_ANSWER: usize = 1 << 10;

struct Case {
    name: &'static str,
    direct: Direct,
    passthrough: Prepared,
    handler: Prepared,
    client: Client,
    bare: BareClient,
}

/// Medians of one case over all rounds, in milliseconds.
struct Figures {
    direct: f64,
    passthrough_overhead: f64,
    handler_overhead: f64,
    /// What a bare thread behind a socket adds.
    bare_overhead: f64,
    /// The first two for a client that sleeps until the answer is there.
    asleep: (f64, f64),
}

pub fn run(setup: &Setup) -> anyhow::Result<()> {
    let floor = Floor::new(&setup.onnxruntime)?;
    let mut real = real_case(setup, &floor)?;
    let real = measure(&mut real.1)?;
    let mut image = image_case(setup, &floor)?;
    let image = measure(&mut image.1)?;
    // The bars take the worse of the two models.
    let handler = real.handler_overhead.max(image.handler_overhead);
    let ratio = real.ratio().max(image.ratio());
    let passthrough = real.passthrough_overhead.max(image.passthrough_overhead);
    let detail = json!({
        "threads": THREADS,
        "rounds": ROUNDS,
        "magika_8_kb_input": real.json(),
        "conv_net_600_kb_input": image.json(),
    });
    bar::report("handler-overhead-ms", handler, "ms", detail.clone());
    bar::report("handler-overhead-ratio", ratio, "ratio", detail.clone());
    bar::report("passthrough-overhead-ms", passthrough, "ms", detail);
    Ok(())
}

/// Magika: the filetype handler turns a file into 2048 tokens; the direct caller
/// gets the tokens ready-made.
fn real_case(setup: &Setup, floor: &Floor) -> anyhow::Result<(Server, Case)> {
    let model = setup.models.join("magika/model.onnx");
    let passthrough = packages::passthrough(setup, "magika-direct", &model, THREADS)?;
    let handler = packages::filetype(setup, THREADS)?;
    let sample = setup.sample();
    let json = json!({
        "inputs": [{"name": "bytes", "datatype": "UINT8", "shape": [sample.len()],
            "parameters": {"binary_data_size": sample.len()}}],
        "parameters": {"binary_data_output": true},
    });
    let handler_request = Prepared::infer("filetype", &json, &[sample]);
    let tokens = packages::magika_input();
    case(setup, floor, "magika", &model, &tokens, &passthrough, &handler, handler_request)
}

/// A convolution network with a picture as input, forwarded by a handler.
fn image_case(setup: &Setup, floor: &Floor) -> anyhow::Result<(Server, Case)> {
    let model = packages::conv_model(setup)?;
    let passthrough = packages::passthrough(setup, "conv-direct", &model, THREADS)?;
    let handler = packages::relay(setup, "conv-relay", &model, THREADS)?;
    let input = packages::conv_input();
    let request = load::request("conv-relay", &input);
    case(setup, floor, "conv", &model, &input, &passthrough, &handler, request)
}

#[allow(clippy::too_many_arguments, reason = "each is one part of the comparison")]
fn case(
    setup: &Setup,
    floor: &Floor,
    name: &'static str,
    model: &Path,
    input: &Input,
    passthrough: &Path,
    handler: &Path,
    handler_request: Prepared,
) -> anyhow::Result<(Server, Case)> {
    let server = Server::start(setup, &[passthrough, handler])?;
    let mut client = server.client()?;
    let direct = floor.load(model, THREADS, input)?;
    let bytes = input.bytes().len();
    let inside = floor.load(model, THREADS, input)?;
    let bare = Bare::start(inside, bytes, BARE_ANSWER)?;
    let bare = BareClient::connect(&bare, bytes, BARE_ANSWER)?;
    let package = passthrough.file_name().context("package folder")?.to_string_lossy().into_owned();
    let input_name = first_input(&mut client, &package)?;
    let passthrough = load::request_named(&package, input, &input_name);
    Ok((server, Case { name, direct, passthrough, handler: handler_request, client, bare }))
}

fn first_input(client: &mut Client, model: &str) -> anyhow::Result<String> {
    let answer = client.get(&format!("/v2/models/{model}"))?;
    let metadata: serde_json::Value = serde_json::from_slice(&answer.body)?;
    Ok(metadata["inputs"][0]["name"].as_str().context("no input in the metadata")?.to_owned())
}

fn measure(case: &mut Case) -> anyhow::Result<Figures> {
    check_same_answer(case)?;
    let (mut direct, mut polling, mut asleep) = (vec![], [vec![], vec![]], [vec![], vec![]]);
    let mut bare = vec![];
    for index in 0..=ROUNDS {
        let floor = times(|| case.direct.run().map(drop))?;
        let behind_a_socket = times(|| case.bare.send())?;
        for (wait, overheads) in [(Wait::Polling, &mut polling), (Wait::Asleep, &mut asleep)] {
            let client = &mut case.client;
            client.wait(wait)?;
            let passthrough = times(|| client.send(&case.passthrough)?.tensors().map(drop))?;
            let handler = times(|| client.send(&case.handler)?.tensors().map(drop))?;
            // The first round warms caches and is not counted.
            if index > 0 {
                overheads[0].push(passthrough - floor);
                overheads[1].push(handler - floor);
            }
        }
        if index > 0 {
            direct.push(floor);
            bare.push(behind_a_socket - floor);
        }
    }
    let figures = Figures {
        direct: median(&direct),
        passthrough_overhead: median(&polling[0]),
        handler_overhead: median(&polling[1]),
        bare_overhead: median(&bare),
        asleep: (median(&asleep[0]), median(&asleep[1])),
    };
    eprintln!("{}: {}", case.name, figures.json());
    Ok(figures)
}

/// A fast wrong answer would be no result.
fn check_same_answer(case: &mut Case) -> anyhow::Result<()> {
    let want = case.direct.run()?;
    let answer = case.client.send(&case.passthrough)?;
    let got: Vec<f32> = answer
        .tensors()?
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        .collect();
    ensure!(got.len() == want.len(), "{}: {} values, not {}", case.name, got.len(), want.len());
    let close = got.iter().zip(&want).all(|(a, b)| (a - b).abs() <= 1e-3 * b.abs().max(1.0));
    ensure!(close, "{}: wick and ONNX Runtime disagree", case.name);
    case.client.send(&case.handler)?.tensors()?;
    Ok(())
}

/// Median time of one call in this round, in milliseconds.
fn times(mut call: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let mut times = Vec::with_capacity(PER_ROUND);
    for _ in 0..PER_ROUND {
        let start = Instant::now();
        call()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(median(&times))
}

impl Figures {
    fn ratio(&self) -> f64 {
        (self.direct + self.handler_overhead) / self.direct
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "direct_ms": round(self.direct),
            "passthrough_overhead_ms": round(self.passthrough_overhead),
            "handler_overhead_ms": round(self.handler_overhead),
            "bare_socket_overhead_ms": round(self.bare_overhead),
            "client_asleep_passthrough_overhead_ms": round(self.asleep.0),
            "client_asleep_handler_overhead_ms": round(self.asleep.1),
        })
    }
}
