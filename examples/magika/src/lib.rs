//! What Google's Magika does round its model: the first and last kilobyte of a file without
//! the white space at their ends go in, and where the model is not sure, "text" or "unknown"
//! comes out.
//!
//! Shared by the guests `filetype` and `batch`, which differ in where files come from and
//! how the model is asked. Nothing here knows of wick, of WebAssembly or of files.

mod features;

pub use features::{BLOCK, FEATURES, Features};

/// What one class of the model means.
#[derive(Debug)]
pub struct FileType {
    pub label: &'static str,
    pub mime: &'static str,
    /// Whether people read such files.
    pub text: bool,
    /// Least score at which the class is believed.
    pub threshold: f32,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answer {
    pub label: &'static str,
    pub mime: &'static str,
    /// The model's probability; 1 where it was not asked.
    pub score: f32,
}

/// What the ends of a file tell by themselves.
#[derive(Debug, Clone)]
pub enum Ends {
    /// Too little for the model, so the answer is simple.
    Plain(Answer),
    /// What the model is to be asked.
    Ask(Box<Features>),
}

/// The scores are not those of the model that this guest was built for.
#[derive(Debug, thiserror::Error)]
pub enum Mismatch {
    #[error(
        "this guest was built without Magika's configuration: run `cargo xtask setup` and build \
         it again"
    )]
    Unconfigured,
    #[error("graph `magika` knows {graph} types, and this guest was built for {built}")]
    Types { graph: usize, built: usize },
}

// `TYPES`, by class, made by build.rs from Magika's configuration.
include!(concat!(env!("OUT_DIR"), "/types.rs"));

const EMPTY: (&str, &str) = ("empty", "inode/x-empty");
const TEXT: (&str, &str) = ("txt", "text/plain");
const UNKNOWN: (&str, &str) = ("unknown", "application/octet-stream");

// === impl Ends ===

impl Ends {
    /// From the first and the last [`BLOCK`] bytes of a file; both are the whole of a
    /// shorter one.
    ///
    /// ```
    /// let magika::Ends::Plain(answer) = magika::Ends::of(b"yes\n", b"yes\n") else { panic!() };
    /// assert_eq!(answer.label, "txt");
    /// ```
    pub fn of(first: &[u8], last: &[u8]) -> Self {
        if first.is_empty() {
            return Self::Plain(certain(EMPTY));
        }
        match Features::of(first, last) {
            Some(features) => Self::Ask(Box::new(features)),
            None if str::from_utf8(first).is_ok() => Self::Plain(certain(TEXT)),
            None => Self::Plain(certain(UNKNOWN)),
        }
    }
}

/// The best class of the model's scores, if it is believed.
///
/// # Errors
/// The scores are another model's.
pub fn judge(scores: &[f32]) -> Result<Answer, Mismatch> {
    if TYPES.is_empty() {
        return Err(Mismatch::Unconfigured);
    }
    if scores.len() != TYPES.len() {
        return Err(Mismatch::Types { graph: scores.len(), built: TYPES.len() });
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
