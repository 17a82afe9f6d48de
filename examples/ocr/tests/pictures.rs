//! The real models on two drawn pictures. Beside each line is what RapidOCR 3.10.0 says
//! of it with the same models and its default settings: text, score and box.

use std::env;
use std::fs;
use std::path::PathBuf;

use ocr::infer;
use wick_guest::testing::Graphs;
use wick_guest::{Request, Result, Tensor};

type Expected = (&'static str, f32, [f32; 8]);

const SIGN: &[Expected] = &[
    ("North Gate Station", 0.9998, [35., 32., 450., 32., 450., 75., 35., 75.]),
    ("Temperature", 0.9999, [37., 121., 220., 122., 220., 153., 37., 152.]),
    ("19.5 C", 0.9137, [397., 120., 503., 120., 503., 150., 397., 150.]),
    ("Humidity", 1.0, [37., 176., 169., 176., 169., 209., 37., 209.]),
    ("62% RH", 0.9592, [398., 177., 514., 177., 514., 204., 398., 204.]),
    ("Readings are taken every minute.", 0.9938, [36., 251., 454., 251., 454., 281., 36., 281.]),
    ("Serial 4711-XK, built 2026", 0.9912, [37., 299., 356., 299., 356., 324., 37., 324.]),
];

const TILTED: &[Expected] = &[("Mind the step", 1.0, [27., 95., 386., 52., 393., 115., 35., 158.])];

/// How far a corner may be off, in pixels.
const PIXELS: f32 = 3.0;

/// How far a score may be off: a crop that is one pixel higher moves it that much.
const SCORE: f32 = 0.1;

fn models() -> PathBuf {
    if let Some(folder) = env::var_os("WICK_MODELS") {
        return folder.into();
    }
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| env::home_dir().map(|home| home.join(".cache")));
    cache.expect("a home folder").join("wick/models")
}

fn check(picture: &str, expected: &[Expected]) -> Result<()> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/pictures").join(picture);
    let file = fs::read(path)?;
    let request = Request::new().with_input("picture", Tensor::new(&[file.len() as u64], &file)?);
    let response = infer(request)?;
    let texts = response.get("text")?.to_strings()?;
    let scores = response.get("score")?.to_vec::<f32>()?;
    let boxes = response.get("box")?.to_vec::<f32>()?;
    assert_eq!(texts, expected.iter().map(|line| line.0).collect::<Vec<_>>());
    for (at, &(text, score, corners)) in expected.iter().enumerate() {
        assert!((scores[at] - score).abs() < SCORE, "{text}: {} and {score}", scores[at]);
        let own = &boxes[8 * at..8 * at + 8];
        let near = own.iter().zip(corners).all(|(own, other)| (own - other).abs() <= PIXELS);
        assert!(near, "{text}: {own:?} and {corners:?}");
    }
    Ok(())
}

#[test]
fn drawn_text_is_read_as_rapidocr_reads_it() -> Result<()> {
    let folder = models().join("ppocr");
    let _graphs = Graphs::new()
        .real("det", folder.join("det.onnx"))?
        .real("rec", folder.join("rec.onnx"))?
        .install();
    check("sign.png", SIGN)?;
    check("tilted.png", TILTED)
}
