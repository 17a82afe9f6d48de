//! Cutting a line out of a picture, straight and upright.

use crate::geometry::{Point, Quad};
use crate::picture::Picture;

/// Lines that are taller than wide by this are turned to lie down.
const TALL: f32 = 1.5;

/// Sharpness of cubic interpolation; the recogniser was trained with this one.
const CUBIC: f32 = -0.75;

/// From a rectangle to the quadrilateral that it shows.
struct Projection {
    x: [f32; 3],
    y: [f32; 3],
    w: [f32; 2],
}

/// The line inside of `quad`.
pub(crate) fn line(picture: &Picture, quad: &Quad) -> Picture {
    let [a, b, c, d] = *quad;
    let width = (a.distance(b).max(c.distance(d)) as u32).max(1);
    let height = (a.distance(d).max(b.distance(c)) as u32).max(1);
    let projection = Projection::onto(quad, width as f32, height as f32);
    let mut pixels = Vec::with_capacity(3 * width as usize * height as usize);
    for y in 0..height {
        for x in 0..width {
            pixels.extend(cubic(picture, projection.of(x as f32, y as f32)));
        }
    }
    let line = Picture { width, height, pixels };
    if height as f32 / width as f32 >= TALL { turned(&line) } else { line }
}

// === impl Projection ===

impl Projection {
    /// Of a rectangle with one corner at the origin.
    fn onto([a, b, c, d]: &Quad, width: f32, height: f32) -> Self {
        let (dx1, dy1) = (b.x - c.x, b.y - c.y);
        let (dx2, dy2) = (d.x - c.x, d.y - c.y);
        let (sx, sy) = (a.x - b.x + c.x - d.x, a.y - b.y + c.y - d.y);
        let area = dx1 * dy2 - dx2 * dy1;
        // Without it the quadrilateral is a line, and no projection is better.
        let (g, h) = if area == 0.0 {
            (0.0, 0.0)
        } else {
            ((sx * dy2 - dx2 * sy) / area, (dx1 * sy - sx * dy1) / area)
        };
        Self {
            x: [(b.x - a.x + g * b.x) / width, (d.x - a.x + h * d.x) / height, a.x],
            y: [(b.y - a.y + g * b.y) / width, (d.y - a.y + h * d.y) / height, a.y],
            w: [g / width, h / height],
        }
    }

    fn of(&self, x: f32, y: f32) -> Point {
        let w = self.w[0] * x + self.w[1] * y + 1.0;
        Point {
            x: (self.x[0] * x + self.x[1] * y + self.x[2]) / w,
            y: (self.y[0] * x + self.y[1] * y + self.y[2]) / w,
        }
    }
}

/// The colour between pixels, from the sixteen round it.
fn cubic(picture: &Picture, at: Point) -> [u8; 3] {
    let (left, top) = (at.x.floor(), at.y.floor());
    let (across, down) = (at.x - left, at.y - top);
    let (left, top) = (left as i32, top as i32);
    if across == 0.0 && down == 0.0 {
        return picture.nearest(left, top);
    }
    let (columns, rows) = (weights(across), weights(down));
    let mut colour = [0.0_f32; 3];
    for (y, row) in (-1..).zip(rows) {
        for (x, column) in (-1..).zip(columns) {
            let pixel = picture.nearest(left.saturating_add(x), top.saturating_add(y));
            for (sum, value) in colour.iter_mut().zip(pixel) {
                *sum += row * column * f32::from(value);
            }
        }
    }
    // Conversion to an integer saturates, which cubic interpolation needs.
    colour.map(|value| value.round() as u8)
}

/// Weights of the four pixels round a place, one before it, two after.
fn weights(part: f32) -> [f32; 4] {
    let far = |distance: f32| CUBIC * (distance * (distance * (distance - 5.0) + 8.0) - 4.0);
    let near =
        |distance: f32| ((CUBIC + 2.0) * distance - (CUBIC + 3.0)) * distance * distance + 1.0;
    [far(1.0 + part), near(part), near(1.0 - part), far(2.0 - part)]
}

/// A quarter turn, against the clock.
fn turned(picture: &Picture) -> Picture {
    let mut pixels = Vec::with_capacity(picture.pixels.len());
    for x in (0..picture.width as i32).rev() {
        for y in 0..picture.height as i32 {
            pixels.extend(picture.nearest(x, y));
        }
    }
    Picture { width: picture.height, height: picture.width, pixels }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(width: u32, height: u32) -> Picture {
        let pixels = (0..width * height).flat_map(|at| [at as u8; 3]).collect();
        Picture { width, height, pixels }
    }

    fn values(picture: &Picture) -> Vec<u8> {
        picture.pixels.iter().step_by(3).copied().collect()
    }

    fn quad(corners: [(f32, f32); 4]) -> Quad {
        corners.map(|(x, y)| Point { x, y })
    }

    #[test]
    fn an_upright_rectangle_is_cut_out_as_it_is() {
        let line = line(&numbered(10, 6), &quad([(2.0, 1.0), (6.0, 1.0), (6.0, 4.0), (2.0, 4.0)]));
        assert_eq!((line.width, line.height), (4, 3));
        assert_eq!(values(&line), [12, 13, 14, 15, 22, 23, 24, 25, 32, 33, 34, 35]);
    }

    #[test]
    fn a_tall_line_is_turned_to_lie_down() {
        let line = line(&numbered(4, 4), &quad([(0.0, 0.0), (2.0, 0.0), (2.0, 3.0), (0.0, 3.0)]));
        assert_eq!((line.width, line.height), (3, 2));
        assert_eq!(values(&line), [1, 5, 9, 0, 4, 8]);
    }

    #[test]
    fn a_projection_meets_the_corners() {
        let corners = quad([(1.0, 2.0), (9.0, 1.0), (8.0, 7.0), (0.0, 5.0)]);
        let projection = Projection::onto(&corners, 20.0, 10.0);
        for (corner, (x, y)) in
            corners.iter().zip([(0.0, 0.0), (20.0, 0.0), (20.0, 10.0), (0.0, 10.0)])
        {
            assert!(projection.of(x, y).distance(*corner) < 1e-4, "{corner:?}");
        }
    }

    #[test]
    fn cubic_weights_sum_to_one() {
        for part in [0.0, 0.25, 0.5, 0.99] {
            assert!((weights(part).iter().sum::<f32>() - 1.0).abs() < 1e-5);
        }
        assert_eq!(weights(0.0)[1], 1.0);
    }
}
