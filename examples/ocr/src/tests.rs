use super::*;
use std::io::Cursor;

use image::{ImageFormat, RgbImage};
use wick_guest::testing::{Graphs, Installed};
use wick_guest::{ErrorKind, Tensors};

/// Text of every line that the fake recogniser reads.
const TEXT: &str = "hi";

/// A detector that finds one line in the middle, or none, and a recogniser.
fn graphs(found: bool) -> Installed {
    let det = move |inputs: &Tensors| {
        let shape = inputs.get("x")?.shape();
        let (height, width) = (shape[2] as usize, shape[3] as usize);
        assert_eq!((height % 32, width % 32), (0, 0));
        let mut map = vec![0.0_f32; height * width];
        if found {
            for row in map.chunks_exact_mut(width).skip(height / 2).take(height / 8) {
                row[width / 4..3 * width / 4].fill(0.9);
            }
        }
        let shape = [1, 1, height as u64, width as u64];
        Ok(Tensors::new().with("map", Tensor::new(&shape, map)?))
    };
    let rec = |inputs: &Tensors| {
        let shape = inputs.get("x")?.shape();
        assert_eq!(shape[1..3], [3, 48]);
        let steps = TEXT.chars().count();
        let classes = recognise::CHARACTERS.len() + 2;
        let mut scores = vec![0.0_f32; shape[0] as usize * steps * classes];
        for (line, character) in scores.chunks_exact_mut(classes).zip(TEXT.chars().cycle()) {
            let class = recognise::CHARACTERS.iter().position(|&own| own == character);
            line[class.expect("run `cargo xtask setup`") + 1] = 0.75;
        }
        let shape = [shape[0], steps as u64, classes as u64];
        Ok(Tensors::new().with("scores", Tensor::new(&shape, scores)?))
    };
    Graphs::new().fake("det", det).fake("rec", rec).install()
}

fn request(width: u32, height: u32) -> Request {
    let mut file = Cursor::new(Vec::new());
    RgbImage::new(width, height).write_to(&mut file, ImageFormat::Png).unwrap();
    let file = file.into_inner();
    let file = Tensor::new(&[file.len() as u64], &file).unwrap();
    Request::new().with_input("picture", file)
}

#[test]
fn a_line_is_found_and_read() -> Result<()> {
    let _graphs = graphs(true);
    let response = infer(request(640, 320).with_parameter("min_side", 320))?;
    assert_eq!(response.get("text")?.to_strings()?, [TEXT]);
    assert_eq!(response.get("score")?.to_vec::<f32>()?, [0.75]);
    let corners = response.get("box")?;
    assert_eq!(corners.shape(), [1, 4, 2]);
    let corners = corners.to_vec::<f32>()?;
    // The detector's box is 160..480 by 160..200, and the line is larger all round.
    let [left, top, .., right, bottom, _, _] = corners[..] else { panic!("{corners:?}") };
    assert!(left < 160.0 && left > 100.0 && top < 160.0 && top > 100.0, "{corners:?}");
    assert!(right > 480.0 && right < 540.0 && bottom > 200.0 && bottom < 260.0, "{corners:?}");
    Ok(())
}

#[test]
fn pictures_of_any_size_are_answered() -> Result<()> {
    let _graphs = graphs(true);
    for (width, height) in [(1, 1), (3, 900), (2300, 20), (64, 64)] {
        let response = infer(request(width, height).with_parameter("min_side", 64))?;
        let corners = response.get("box")?.to_vec::<f32>()?;
        for corner in corners.as_chunks::<2>().0 {
            let inside = corner[0] <= width as f32 && corner[1] <= height as f32;
            assert!(inside && corner[0] >= 0.0 && corner[1] >= 0.0, "{width} {height} {corners:?}");
        }
    }
    Ok(())
}

#[test]
fn a_picture_without_text_has_no_lines() -> Result<()> {
    let _graphs = graphs(false);
    let response = infer(request(100, 100))?;
    let shape = |name| Ok::<_, Error>(response.get(name)?.shape());
    assert_eq!(shape("text")?, [0]);
    assert_eq!(shape("score")?, [0]);
    assert_eq!(shape("box")?, [0, 4, 2]);
    Ok(())
}

#[test]
fn lines_that_are_not_believed_are_left_out() -> Result<()> {
    let _graphs = graphs(true);
    let response = infer(request(320, 320).with_parameter("min_score", 0.8))?;
    assert!(response.get("text")?.is_empty());
    Ok(())
}

#[test]
fn the_callers_mistakes_are_told_apart() {
    let cases = [
        (Request::new(), ErrorKind::BadInput, "input `picture` is missing"),
        (request(9, 9).with_parameter("min_side", 0), ErrorKind::BadInput, "min_side"),
        (request(9, 9).with_parameter("min_score", "high"), ErrorKind::BadInput, "min_score"),
        (request(6000, 5000), ErrorKind::TooLarge, "6000 by 5000 pixels"),
    ];
    for (request, kind, message) in cases {
        let error = infer(request).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains(message), "{error}");
    }
}
