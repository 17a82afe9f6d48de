//! Finding lines of text: the graph `det`, what goes into it and what comes out.

use wick_guest::{Error, Result, Tensor, graph};

use crate::geometry::{self, Point, Quad};
use crate::picture::{self, Picture};
use crate::regions::Map;

/// Most pixels that the detector is given: above it, enlarging stops. A picture of 2000
/// by 250, the flattest that is not padded, is enlarged to 4.3 million.
const MAX_PIXELS: f32 = 6_000_000.0;

/// Lines whose tops differ by less, in pixels, are read from left to right.
const SAME_ROW: f32 = 10.0;

/// Lines that are narrower or lower than this, in whole pixels, are none.
const MIN_SIDE: f32 = 3.0;

/// Corners of all lines in reading order, in pixels of the picture.
pub(crate) fn lines(picture: &Picture, min_side: u32) -> Result<Vec<Quad>> {
    let (width, height) = size(picture, min_side);
    let mut planes = vec![0.0; 3 * width as usize * height as usize];
    picture.resized(width, height).write_planes(&mut planes, width as usize);
    let input = Tensor::new(&[1, 3, height.into(), width.into()], planes)?;
    let out = graph("det")?.run([("x", input)])?;

    let (_, map) = out.iter().next().ok_or_else(|| Error::internal("`det` returned nothing"))?;
    let &[1, 1, rows, columns] = &map.shape()[..] else {
        return Err(Error::internal(format_args!("`det` returned {map:?}, not one map")));
    };
    let values = map.view::<f32>()?;
    let map = Map { width: columns as usize, height: rows as usize, values: &values };
    let scale =
        Point { x: picture.width as f32 / columns as f32, y: picture.height as f32 / rows as f32 };
    let quads = map.lines().into_iter().filter_map(|quad| placed(quad, scale, picture));
    Ok(sorted(quads.collect()))
}

/// What the picture is resized to: multiples of 32, and the shorter side not under
/// `min_side`.
fn size(picture: &Picture, min_side: u32) -> (u32, u32) {
    let (width, height) = (picture.width as f32, picture.height as f32);
    let wanted = (min_side as f32 / width.min(height)).max(1.0);
    let ratio = wanted.min((MAX_PIXELS / (width * height)).sqrt());
    let side = |side: f32| picture::whole_steps((side * ratio).floor());
    (side(width), side(height))
}

/// A line in the picture instead of the map; none if it is too small there.
fn placed(quad: Quad, scale: Point, picture: &Picture) -> Option<Quad> {
    let place = |at: f32, scale: f32, size: u32| {
        (at * scale).round_ties_even().clamp(0.0, size as f32 - 1.0)
    };
    let quad = geometry::ordered(quad.map(|corner| Point {
        x: place(corner.x, scale.x, picture.width),
        y: place(corner.y, scale.y, picture.height),
    }));
    let (width, height) = (quad[0].distance(quad[1]), quad[0].distance(quad[3]));
    (width.trunc() > MIN_SIDE && height.trunc() > MIN_SIDE).then_some(quad)
}

/// From top to bottom, and from left to right within a row.
fn sorted(mut quads: Vec<Quad>) -> Vec<Quad> {
    quads.sort_by(|a, b| a[0].y.total_cmp(&b[0].y));
    for row in quads.chunk_by_mut(|a, b| b[0].y - a[0].y < SAME_ROW) {
        row.sort_by(|a, b| a[0].x.total_cmp(&b[0].x));
    }
    quads
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: u32, height: u32) -> Picture {
        Picture { width, height, pixels: Vec::new() }
    }

    #[test]
    fn sides_are_multiples_of_32_and_bounded() {
        assert_eq!(size(&picture(640, 480), 736), (992, 736));
        assert_eq!(size(&picture(1000, 800), 736), (992, 800));
        assert_eq!(size(&picture(64, 40), 32), (64, 32));
        let (width, height) = size(&picture(30, 2000), 736);
        assert!(u64::from(width) * u64::from(height) < 7_000_000, "{width} {height}");
    }

    #[test]
    fn lines_are_read_row_by_row() {
        let quad = |x: f32, y: f32| [Point { x, y }; 4];
        let lines = sorted(vec![quad(9.0, 40.0), quad(80.0, 5.0), quad(10.0, 9.0)]);
        let tops: Vec<_> = lines.iter().map(|quad| (quad[0].x, quad[0].y)).collect();
        assert_eq!(tops, [(10.0, 9.0), (80.0, 5.0), (9.0, 40.0)]);
    }
}
