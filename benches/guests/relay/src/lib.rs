//! The least that a handler can do: hand its input to a graph and the graph's
//! output back. No byte of a tensor enters the guest, so what a benchmark sees is
//! the cost of the host alone.

use wick_guest::{Request, Response, Result, graph, handler};

#[handler]
fn infer(request: Request) -> Result<Response> {
    let outputs = graph("g")?.run([("x", request.input("x")?)])?;
    Ok(Response::new().output("y", outputs.get("y")?))
}
