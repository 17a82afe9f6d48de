//! A handler that returns its inputs and parameters as they are: no byte of a
//! tensor enters it.

#![allow(unsafe_code, clippy::mem_forget, reason = "what the bindings expand to")]

wit_bindgen::generate!({
    path: "../../../../sdk/wit",
    world: "wick:model/model",
    generate_all,
});

use exports::wick::model::handler::{Error, Guest, Request, Response};

struct Echo;

impl Guest for Echo {
    fn infer(request: Request) -> Result<Response, Error> {
        Ok(Response { parameters: request.parameters, outputs: request.inputs })
    }
}

export!(Echo);
