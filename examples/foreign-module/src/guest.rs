//! The calls of `wasi_ephemeral_nn`.

use std::error::Error;

use orientation::Picture;
use wasi_nn::{ExecutionTarget, Graph, GraphBuilder, GraphEncoding, TensorType};

/// Print the label of each chosen picture.
///
/// # Errors
/// The host has no graph `cls`, or it failed.
pub(crate) fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let graph =
        GraphBuilder::new(GraphEncoding::Onnx, ExecutionTarget::CPU).build_from_cache("cls")?;
    for picture in Picture::chosen(&arguments) {
        let (label, score) = orientation::label(classify(&graph, picture)?);
        println!("{}: {label} ({score:.3})", picture.name);
    }
    Ok(())
}

fn classify(graph: &Graph, picture: Picture) -> Result<[f32; 2], Box<dyn Error>> {
    let shape = orientation::SHAPE.map(|size| size as usize);
    let mut context = graph.init_execution_context()?;
    context.set_input(0, TensorType::F32, &shape, picture.tensor()?)?;
    context.compute()?;
    let mut scores = [0.0_f32; 2];
    let size = context.get_output(0, &mut scores)?;
    if size != size_of_val(&scores) {
        return Err(format!("the output has {size} bytes instead of 8").into());
    }
    Ok(scores)
}
