//! A picture in, its text out: PP-OCR as a wick package, two graphs in one handler.
//!
//! ```text
//! PNG, JPEG ─ picture ─ detect ─(graph det)─ regions ─ crop ─ recognise ─(graph rec)─ text
//! ```
//!
//! Before and after its graphs it does what RapidOCR 3.10 does, with its defaults, but
//! for the classifier that finds lines that stand on their heads.

mod crop;
mod detect;
mod geometry;
mod picture;
mod recognise;
mod regions;

use wick_guest::{Error, Parameter, Request, Response, Result, Tensor, handler};

use geometry::Quad;
use picture::Picture;

/// Shorter side that a picture is enlarged to before text is looked for, in pixels.
const DEFAULT_MIN_SIDE: u32 = 736;

/// Lines that the recogniser believes less than this are left out.
const DEFAULT_MIN_SCORE: f32 = 0.5;

/// A line of text where it stands.
struct Line {
    text: String,
    /// Mean probability of its characters.
    score: f32,
    /// Corners in the picture, clockwise from the top left.
    corners: Quad,
}

/// What the caller may choose.
struct Settings {
    min_side: u32,
    min_score: f32,
}

/// Answer one request: `picture` is a PNG or JPEG file. Parameters: `min_side` (32 to
/// 2000, default 736: smaller is faster and misses small text) and `min_score` (0 to 1,
/// default 0.5).
///
/// # Errors
/// The picture can't be decoded or is too large, a parameter is out of range, or a graph
/// fails.
#[handler]
pub fn infer(request: Request) -> Result<Response> {
    let settings = Settings::of(&request)?;
    let file = request.input("picture")?.view::<u8>()?;
    let picture = Picture::decode(&file)?;
    let lines = read(picture, &settings)?;

    let count = lines.len() as u64;
    let text: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
    let scores: Vec<f32> = lines.iter().map(|line| line.score).collect();
    let corners: Vec<f32> =
        lines.iter().flat_map(|line| line.corners.iter()).flat_map(|at| [at.x, at.y]).collect();
    Ok(Response::new()
        .output("text", Tensor::from_strings(&[count], &text)?)
        .output("score", Tensor::new(&[count], scores)?)
        .output("box", Tensor::new(&[count, 4, 2], corners)?))
}

/// Find the lines, cut them out and read them.
fn read(picture: Picture, settings: &Settings) -> Result<Vec<Line>> {
    let (picture, placed) = picture.fitted();
    let quads = detect::lines(&picture, settings.min_side)?;
    let crops: Vec<Picture> = quads.iter().map(|quad| crop::line(&picture, quad)).collect();
    let texts = recognise::texts(&crops)?;
    let lines = quads.iter().zip(texts).map(|(quad, (text, score))| Line {
        text,
        score,
        corners: quad.map(|corner| placed.original(corner)),
    });
    Ok(lines
        .filter(|line| !line.text.trim().is_empty() && line.score >= settings.min_score)
        .collect())
}

// === impl Settings ===

impl Settings {
    fn of(request: &Request) -> Result<Self> {
        let mut settings = Self { min_side: DEFAULT_MIN_SIDE, min_score: DEFAULT_MIN_SCORE };
        if let Some(value) = request.parameter("min_side") {
            settings.min_side = value
                .as_i64()
                .and_then(|side| u32::try_from(side).ok())
                .filter(|side| (32..=picture::MAX_SIDE).contains(side))
                .ok_or_else(|| Error::bad_input("min_side is a whole number from 32 to 2000"))?;
        }
        if let Some(value) = request.parameter("min_score") {
            settings.min_score = Parameter::as_f64(value)
                .filter(|score| (0.0..=1.0).contains(score))
                .ok_or_else(|| Error::bad_input("min_score is a number from 0 to 1"))?
                as f32;
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests;
