//! The calls of `wasi:nn`.

use orientation::Picture;
use wasi::nn::errors::Error;
use wasi::nn::graph::{self, Graph};
use wasi::nn::tensor::{Tensor, TensorType};

wit_bindgen::generate!({
    path: "../../sdk/wit/deps/wasi-nn.wit",
    world: "ml",
    generate_all,
});

/// Print the label of each chosen picture.
///
/// # Errors
/// The host has no graph `cls`, or it failed.
pub(crate) fn run() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let graph = graph::load_by_name("cls").map_err(reason)?;
    for picture in Picture::chosen(&arguments) {
        let (label, score) = orientation::label(classify(&graph, picture)?);
        println!("{}: {label} ({score:.3})", picture.name);
    }
    Ok(())
}

fn classify(graph: &Graph, picture: Picture) -> Result<[f32; 2], String> {
    let values = picture.tensor().map_err(|error| error.to_string())?;
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let input = Tensor::new(&orientation::SHAPE, TensorType::Fp32, &data);
    let context = graph.init_execution_context().map_err(reason)?;
    let outputs = context.compute(vec![("x".to_owned(), input)]).map_err(reason)?;
    let (name, output) = outputs.first().ok_or("the graph returned nothing")?;
    let data = output.data();
    let Some(([upright, rotated], [])) = data.as_chunks::<4>().0.split_first_chunk() else {
        return Err(format!("output {name} has {} bytes instead of 8", data.len()));
    };
    Ok([f32::from_le_bytes(*upright), f32::from_le_bytes(*rotated)])
}

fn reason(error: Error) -> String {
    format!("{:?}: {}", error.code(), error.data())
}
