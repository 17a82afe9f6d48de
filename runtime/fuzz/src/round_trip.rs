//! What holds for every request that was understood.

use wick_engine::InferResponse;
use wick_nn::Tensor;
use wick_package::Datatype;
use wick_serve::codec::{self, Decoded, Identity, MAX_TENSORS, Wants};

/// Most bytes that a byte of JSON becomes: `0,` is an FP64.
pub const JSON_GROWTH: usize = 4;

/// What a tensor of strings has beside its one string, in the raw form.
const LENGTH: usize = 4;

/// A request of `body` bytes, of which one becomes `growth` at most: its tensors are whole and no larger than it can have said, and a
/// server that sends them back says the same.
pub fn check(decoded: Decoded, body: usize, growth: usize) {
    let request = decoded.request;
    assert!(request.inputs.len() <= MAX_TENSORS && request.outputs.len() <= MAX_TENSORS);
    let bytes: usize = request.inputs.iter().map(|(_, tensor)| tensor.data().len()).sum();
    assert!(bytes <= body * growth + LENGTH, "{bytes} bytes of tensors in {body} bytes of request");
    for (name, tensor) in &request.inputs {
        check_tensor(name, tensor);
    }
    let response = InferResponse { outputs: request.inputs, ..InferResponse::default() };
    for binary in [true, false] {
        echo(&response, request.id.as_deref(), binary);
    }
}

fn check_tensor(name: &str, tensor: &Tensor) {
    let elements: u64 = tensor.shape().iter().product();
    let bytes = tensor.data().len() as u64;
    match tensor.datatype().size() {
        Some(size) => assert_eq!(bytes, elements * size as u64, "`{name}`"),
        None => assert!(bytes >= elements * 4, "`{name}` has fewer strings than its shape"),
    }
}

/// Write tensors as an answer and read them as a request, whose form is the same.
fn echo(response: &InferResponse, id: Option<&str>, binary: bool) {
    let who = Identity { model: "m", version: "1", id };
    let wants = Wants { binary, outputs: Vec::new() };
    // Some tensors have no JSON form.
    let Ok(encoded) = codec::encode(who, response, &wants) else {
        assert!(!binary, "binary is always possible");
        return;
    };
    let body: Vec<u8> = encoded.chunks.concat();
    let text = encoded.header.unwrap_or(body.len());
    // An answer's `outputs` are what a request calls `inputs`. Text of a client is escaped, so
    // these letters are nowhere else.
    let (key, turned) = (&br#""outputs":["#[..], &br#""inputs":["#[..]);
    let at = body[..text].windows(key.len()).position(|window| window == key);
    let (before, after) = body.split_at(at.expect("an answer has outputs"));
    let turned = [before, turned, &after[key.len()..]].concat();
    let again = codec::decode(encoded.header.map(|header| header - 1), &turned.into(), &[]);
    let again = again.unwrap_or_else(|error| panic!("own answer is not understood: {error}"));
    assert_eq!(again.request.inputs.len(), response.outputs.len());
    for ((name, tensor), (want_name, want)) in again.request.inputs.iter().zip(&response.outputs) {
        assert_eq!(name, want_name);
        assert_eq!((tensor.datatype(), tensor.shape()), (want.datatype(), want.shape()));
        let same_text = binary || !matches!(want.datatype(), Datatype::Fp32 | Datatype::Fp64);
        assert!(tensor.data() == want.data() || !same_text, "`{name}` is another tensor");
    }
}
