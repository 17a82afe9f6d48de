//! The least that a handler can do: hand its inputs to a graph and the graph's
//! outputs back. No byte of a tensor enters the guest, so what a benchmark sees is
//! the cost of the host alone.

use wick_guest::{Request, Response, Result, graph, handler};

#[handler]
fn infer(request: Request) -> Result<Response> {
    let outputs = graph("g")?.run(request.inputs().iter())?;
    Ok(outputs
        .iter()
        .fold(Response::new(), |response, (name, tensor)| response.output(name, tensor)))
}
