//! The calls of `wasi:nn`.

use std::error::Error;
use std::io;
use std::path::Path;

use batch::{Job, Tally};
use magika::FEATURES;
use wasi::nn::graph::{self, Graph};
use wasi::nn::tensor::{Tensor, TensorType};

wit_bindgen::generate!({
    path: "../../sdk/wit/deps/wasi-nn.wit",
    world: "ml",
    generate_all,
});

/// Where `wick.toml` wants its mounts.
const DATA: &str = "/data";
const OUT: &str = "/out";

/// The model's input: one file, its two ends.
const SHAPE: [u32; 2] = [1, FEATURES as u32];

/// Do the job.
///
/// # Errors
/// The host has no graph `magika`, or the job could not be done: one sentence that says why.
pub(crate) fn run() -> Result<Tally, String> {
    let graph = graph::load_by_name("magika").map_err(reason)?;
    let job = Job { data: Path::new(DATA), out: Path::new(OUT) };
    let ask = |features: &[i32]| scores(&graph, features);
    job.run(ask, io::stdout(), io::stderr()).map_err(|error| match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    })
}

/// The model's score for each type.
fn scores(graph: &Graph, features: &[i32]) -> Result<Vec<f32>, String> {
    let data: Vec<u8> = features.iter().flat_map(|value| value.to_le_bytes()).collect();
    let input = Tensor::new(&SHAPE, TensorType::I32, &data);
    let context = graph.init_execution_context().map_err(reason)?;
    let outputs = context.compute(vec![("bytes".to_owned(), input)]).map_err(reason)?;
    let output = outputs.iter().find(|(name, _)| name == "target_label");
    let (_, output) = output.ok_or("graph `magika` returned no `target_label`")?;
    if output.ty() != TensorType::Fp32 {
        return Err(format!("`target_label` is {:?} instead of Fp32", output.ty()));
    }
    let data = output.data();
    Ok(data.as_chunks::<4>().0.iter().copied().map(f32::from_le_bytes).collect())
}

fn reason(error: wasi::nn::errors::Error) -> String {
    format!("graph `magika`: {:?}: {}", error.code(), error.data())
}
