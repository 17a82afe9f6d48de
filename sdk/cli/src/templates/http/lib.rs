//! A model behind an HTTP interface of its own: numbers in the body, one on each line or
//! separated by commas; the model's answer as text.

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    Fields, IncomingBody, IncomingRequest, Method, OutgoingBody, OutgoingResponse,
    ResponseOutparam,
};
use wasip2::io::streams::StreamError;

/// The official `wasi:nn` interface.
mod nn {
    wit_bindgen::generate!({
        path: "wit/wasi-nn.wit",
        world: "ml",
        generate_all,
    });
}

use nn::wasi::nn::graph::load_by_name;
use nn::wasi::nn::tensor::{Tensor, TensorType};

/// Most bytes of a body that are read: four numbers need far less.
const MAX_BODY: usize = 64 << 10;

/// Bytes that are asked for at once.
const CHUNK: u64 = 16 << 10;

struct Component;

wasip2::http::proxy::export!(Component);

impl Guest for Component {
    fn handle(request: IncomingRequest, answer: ResponseOutparam) {
        let (status, text) = match request.method() {
            Method::Post => match infer(&request) {
                Ok(text) => (200, text),
                Err(Failure::Client(text)) => (400, text),
                Err(Failure::Model(text)) => (500, text),
            },
            _ => (405, "send numbers with POST\n".to_owned()),
        };
        respond(answer, status, &text);
    }
}

/// Whose fault it is.
enum Failure {
    Client(String),
    Model(String),
}

fn infer(request: &IncomingRequest) -> Result<String, Failure> {
    let text = read(request).map_err(Failure::Client)?;
    let words = text.split([',', '\n', ' ']).map(str::trim).filter(|word| !word.is_empty());
    let values: Result<Vec<f32>, _> = words.map(str::parse).collect();
    let values = values.map_err(|error| Failure::Client(format!("{error}\n")))?;
    if values.len() != 4 {
        return Err(Failure::Client(format!("send 4 numbers, not {}\n", values.len())));
    }
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();

    let wrong = |error: nn::wasi::nn::errors::Error| Failure::Model(error.data());
    let context = load_by_name("model")
        .and_then(|graph| graph.init_execution_context())
        .map_err(wrong)?;
    let input = Tensor::new(&vec![1, 4], TensorType::Fp32, &data);
    let outputs = context.compute(vec![("x".to_owned(), input)]).map_err(wrong)?;

    let mut answer = String::new();
    for (name, tensor) in outputs {
        let data = tensor.data();
        let (numbers, _) = data.as_chunks::<4>();
        let numbers: Vec<_> =
            numbers.iter().map(|bytes| f32::from_le_bytes(*bytes).to_string()).collect();
        answer.push_str(&format!("{name}: {}\n", numbers.join(", ")));
    }
    Ok(answer)
}

fn read(request: &IncomingRequest) -> Result<String, String> {
    let body = request.consume().map_err(|()| "the body is gone\n".to_owned())?;
    let stream = body.stream().map_err(|()| "the body is gone\n".to_owned())?;
    let mut bytes = Vec::new();
    loop {
        match stream.blocking_read(CHUNK) {
            Ok(chunk) => bytes.extend(chunk),
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(error)) => return Err(error.to_debug_string()),
        }
        if bytes.len() > MAX_BODY {
            return Err("the body is too long\n".to_owned());
        }
    }
    drop(stream);
    drop(IncomingBody::finish(body));
    String::from_utf8(bytes).map_err(|error| format!("{error}\n"))
}

fn respond(answer: ResponseOutparam, status: u16, text: &str) {
    let response = OutgoingResponse::new(Fields::new());
    // Both fail only for a status that HTTP lacks, or when called twice.
    let _ = response.set_status_code(status);
    let Ok(body) = response.body() else { return };
    ResponseOutparam::set(answer, Ok(response));
    if let Ok(stream) = body.write() {
        // A client that left gets no answer.
        let _ = stream.blocking_write_and_flush(text.as_bytes());
    }
    let _ = OutgoingBody::finish(body, None);
}
