//! Any file in, its type out: Google's Magika as a wick package.
//!
//! What the model takes and what its scores mean is in `examples/magika`; this is the
//! handler round it. Of a large file only two blocks of 4 KiB enter its memory.

use magika::{Answer, BLOCK, Ends, FEATURES};
use wick_guest::{Error, Response, Result, Tensor, graph, handler};

/// Answer one request: `bytes` is the file, or at least its first and last 4 KiB.
///
/// # Errors
/// The graph fails, or the handler was built without Magika's configuration.
#[handler]
pub fn infer(bytes: Tensor) -> Result<Response> {
    let answer = identify(&bytes)?;
    Ok(Response::new()
        .output("label", Tensor::from_strings(&[1], &[answer.label])?)
        .output("score", Tensor::new(&[1], [answer.score])?)
        .output("mime", Tensor::from_strings(&[1], &[answer.mime])?))
}

fn identify(bytes: &Tensor) -> Result<Answer> {
    let size = bytes.byte_size();
    let begin = bytes.read(0, BLOCK);
    let ends = if size <= BLOCK {
        Ends::of(&begin, &begin)
    } else {
        Ends::of(&begin, &bytes.read(size - BLOCK, BLOCK))
    };
    let features = match ends {
        Ends::Plain(answer) => return Ok(answer),
        Ends::Ask(features) => features,
    };
    let input = Tensor::new(&[1, FEATURES as u64], features.values())?;
    let out = graph("magika")?.run([("bytes", input)])?;
    magika::judge(&out.get("target_label")?.view::<f32>()?).map_err(Error::internal)
}

#[cfg(test)]
mod tests;
