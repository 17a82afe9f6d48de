//! Any file in, its type out: Google's Magika as a wick package.
//!
//! The handler does what Magika's Python package does round its model: it takes the
//! first and last kilobyte without the white space at their ends, asks the model, and
//! falls back to "text" or "unknown" where the model is not sure. Of a large file only
//! two blocks of 4 KiB enter the handler's memory.

mod features;

use wick_guest::{Error, Response, Result, Tensor, graph, handler};

use features::{BLOCK, FEATURES, Features};

/// What one class of the model means.
struct FileType {
    label: &'static str,
    mime: &'static str,
    /// Whether people read such files.
    text: bool,
    /// Least score at which the class is believed.
    threshold: f32,
}

/// What the handler answers.
struct Answer {
    label: &'static str,
    mime: &'static str,
    score: f32,
}

// `TYPES`, by class, made by build.rs from Magika's configuration.
include!(concat!(env!("OUT_DIR"), "/types.rs"));

const EMPTY: (&str, &str) = ("empty", "inode/x-empty");
const TEXT: (&str, &str) = ("txt", "text/plain");
const UNKNOWN: (&str, &str) = ("unknown", "application/octet-stream");

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
    if size == 0 {
        return Ok(certain(EMPTY));
    }
    let begin = bytes.read(0, BLOCK);
    let features = if size <= BLOCK {
        Features::of(&begin, &begin)
    } else {
        Features::of(&begin, &bytes.read(size - BLOCK, BLOCK))
    };
    let Some(features) = features else {
        // Too little for the model.
        return Ok(certain(if str::from_utf8(&begin).is_ok() { TEXT } else { UNKNOWN }));
    };
    let input = Tensor::new(&[1, FEATURES as u64], features.values())?;
    let out = graph("magika")?.run([("bytes", input)])?;
    judge(&out.get("target_label")?.view::<f32>()?)
}

/// The best class, if it is believed.
fn judge(scores: &[f32]) -> Result<Answer> {
    if TYPES.is_empty() {
        return Err(Error::internal(
            "this handler was built without Magika's configuration: run `cargo xtask setup` \
             and build it again",
        ));
    }
    if scores.len() != TYPES.len() {
        return Err(Error::internal(format_args!(
            "graph `magika` knows {} types, and the handler was built for {}",
            scores.len(),
            TYPES.len()
        )));
    }
    let first = (&TYPES[0], scores[0]);
    let classes = TYPES.iter().zip(scores.iter().copied());
    let (best, score) =
        classes.fold(first, |best, class| if class.1 > best.1 { class } else { best });
    let (label, mime) = if score >= best.threshold {
        (best.label, best.mime)
    } else if best.text {
        TEXT
    } else {
        UNKNOWN
    };
    Ok(Answer { label, mime, score })
}

fn certain((label, mime): (&'static str, &'static str)) -> Answer {
    Answer { label, mime, score: 1.0 }
}

#[cfg(test)]
mod tests;
