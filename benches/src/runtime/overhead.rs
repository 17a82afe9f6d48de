//! What HTTP, the handler and the host add to one inference.
//!
//! Three callers take turns in rounds: ONNX Runtime called directly, the same model
//! as a pass-through package, and through a handler component. Overhead is the
//! difference of a round's medians, so that a slow phase of the machine hits all.
//!
//! A fourth caller shows what the machine itself adds: the same bytes to and from a bare
//! thread that runs the inference, without HTTP and without wick.
//!
//! The bars are of a real model, Magika: behind the handler that makes its tokens, and, on a
//! machine where that takes less than 5 ms, with as many files as take longer behind a handler
//! that forwards them. What 600 KB on their way through a socket add is beside it: most of that
//! is the socket's.
//!
//! The direct caller never sleeps, so the client polls its socket: its own wake-up is
//! no part of the server. The detail has the same figures for a client that sleeps,
//! which add what the kernel needs to wake it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
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

/// What the child of one life is called on the command line.
pub const LIFE: &str = "runtime-overhead-life";

/// How often all callers start anew. Where the buffers of a session happen to lie makes an
/// inference faster or slower by several percent for as long as its process lives, more than
/// what is measured here.
const LIVES: usize = 7;

/// Rounds of a life, and inferences of each caller in a round. Rounds are short: a shared machine is
/// slower by a tenth for seconds at a time, and a round in which it changes says nothing. The
/// median of five has nothing of the first, whose caches hold another caller's weights.
const ROUNDS: usize = 15;
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

/// Medians of one case, in milliseconds, by their names in the report.
type Figures = BTreeMap<String, f64>;

const DIRECT: &str = "direct_ms";
const PASSTHROUGH: &str = "passthrough_overhead_ms";
const HANDLER: &str = "handler_overhead_ms";

/// The cases, as the command line of a child has them.
const FILE: &str = "magika, a file of 2 KB";
const FILES: &str = "magika, tokens of several files";
const PICTURE: &str = "convolutions, a picture of 600 KB";

pub fn run(setup: &Setup) -> anyhow::Result<()> {
    let floor = Floor::new(&setup.onnxruntime)?;
    let files = packages::magika_files(&setup.models.join("magika/model.onnx"), &floor)?;
    let names: &[&str] = if files > 1 { &[FILE, FILES, PICTURE] } else { &[FILE, PICTURE] };
    let mut cases = BTreeMap::new();
    for name in names {
        let figures = all_lives(name)?;
        eprintln!("{name}: {}", json!(figures));
        cases.insert(*name, figures);
    }
    let detail = json!({
        "threads": THREADS, "lives": LIVES, "rounds": ROUNDS, "files": files, "cases": cases,
    });
    let real = || cases.iter().filter(|(name, _)| **name != PICTURE);
    let most = |of: fn(&Figures) -> f64| real().map(|(_, case)| of(case)).fold(f64::MIN, f64::max);
    let report = |bar, value, unit| bar::report(bar, value, unit, detail.clone());
    report("handler-overhead-ms", most(|case| case[HANDLER]), "ms");
    let ratio = |case: &Figures| (case[DIRECT] + case[HANDLER]) / case[DIRECT];
    report("handler-overhead-ratio", most(ratio), "ratio");
    report("passthrough-overhead-ms", most(|case| case[PASSTHROUGH]), "ms");
    Ok(())
}

/// Medians over lives of a case.
fn all_lives(name: &str) -> anyhow::Result<Figures> {
    let mut all: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for _ in 0..LIVES {
        let output = Command::new(std::env::current_exe()?)
            .args([LIFE, name])
            .stderr(Stdio::inherit())
            .output()?;
        ensure!(output.status.success(), "{name}: {}", output.status);
        let figures: Figures = serde_json::from_slice(&output.stdout)?;
        figures.into_iter().for_each(|(name, value)| all.entry(name).or_default().push(value));
    }
    Ok(all.into_iter().map(|(name, values)| (name, round(median(&values)))).collect())
}

/// The child: measure one case, and tell its figures.
pub fn life(setup: &Setup, args: &[String]) -> anyhow::Result<()> {
    let floor = Floor::new(&setup.onnxruntime)?;
    let model = setup.models.join("magika/model.onnx");
    let (_server, mut case) = match args {
        [name] if name == FILE => file_case(setup, &floor, &model)?,
        [name] if name == FILES => files_case(setup, &floor, &model)?,
        [name] if name == PICTURE => image_case(setup, &floor)?,
        _ => bail!("no case {args:?}"),
    };
    println!("{}", json!(measure(&mut case)?));
    Ok(())
}

/// Magika: the filetype handler turns a file into 2048 tokens; the direct caller
/// gets the tokens ready-made.
fn file_case(setup: &Setup, floor: &Floor, model: &Path) -> anyhow::Result<(Server, Case)> {
    let passthrough = packages::passthrough(setup, "magika-direct", model, THREADS)?;
    let handler = packages::filetype(setup, THREADS)?;
    let sample = setup.sample();
    let json = json!({
        "inputs": [{"name": "bytes", "datatype": "UINT8", "shape": [sample.len()],
            "parameters": {"binary_data_size": sample.len()}}],
        "parameters": {"binary_data_output": true},
    });
    let handler_request = Prepared::infer("filetype", &json, &[sample]);
    let tokens = packages::magika_input(1);
    case(setup, floor, FILE, model, &tokens, &passthrough, &handler, handler_request)
}

/// Magika with the tokens of several files, forwarded by a handler.
fn files_case(setup: &Setup, floor: &Floor, model: &Path) -> anyhow::Result<(Server, Case)> {
    let files = packages::magika_files(model, floor)?;
    let passthrough = packages::passthrough(setup, "magika-files", model, THREADS)?;
    let handler = packages::magika_relay(setup, model, THREADS)?;
    let tokens = packages::magika_input(files);
    let request = load::request_named("magika-relay", &tokens, "bytes");
    case(setup, floor, FILES, model, &tokens, &passthrough, &handler, request)
}

/// A convolution network with a picture as input, forwarded by a handler.
fn image_case(setup: &Setup, floor: &Floor) -> anyhow::Result<(Server, Case)> {
    let model = packages::conv_model(setup, floor)?;
    let passthrough = packages::passthrough(setup, "conv-direct", &model, THREADS)?;
    let handler = packages::relay(setup, "conv-relay", &model, THREADS)?;
    let input = packages::conv_input();
    let request = load::request("conv-relay", &input);
    case(setup, floor, PICTURE, &model, &input, &passthrough, &handler, request)
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
    let [passthrough, handler] = polling.map(|overheads| median(&overheads));
    let [asleep_passthrough, asleep_handler] = asleep.map(|overheads| median(&overheads));
    let figures = [
        (DIRECT, median(&direct)),
        (PASSTHROUGH, passthrough),
        (HANDLER, handler),
        // What a bare thread behind a socket adds.
        ("bare_socket_overhead_ms", median(&bare)),
        // For a client that sleeps until the answer is there.
        ("client_asleep_passthrough_overhead_ms", asleep_passthrough),
        ("client_asleep_handler_overhead_ms", asleep_handler),
    ];
    Ok(figures.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
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
