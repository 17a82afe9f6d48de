//! From the detector's map of probabilities to the places of lines.

use crate::geometry::{self, Point, Quad, Rectangle};

/// Least probability of a pixel of text.
const PIXEL: f32 = 0.3;

/// Least mean probability of a line.
const LINE: f32 = 0.5;

/// How much larger a line is than what the detector marks of it.
const GROWTH: f32 = 1.6;

/// Shorter side that a line has at least, in pixels of the map.
const MIN_SIDE: f32 = 3.0;

/// Most lines that are looked at.
const MAX_LINES: usize = 1000;

/// Probabilities of text, row by row.
pub(crate) struct Map<'a> {
    pub(crate) width: usize,
    pub(crate) height: usize,
    // Invariant: width * height values.
    pub(crate) values: &'a [f32],
}

/// Leftmost and rightmost pixel of a row; an empty row has them the wrong way round.
type Span = (i32, i32);

const NO_SPAN: Span = (i32::MAX, i32::MIN);

// === impl Map ===

impl Map<'_> {
    /// Corners of all lines, in pixels of this map, unsorted.
    pub(crate) fn lines(&self) -> Vec<Quad> {
        let mut mask = self.mask();
        let mut spans = vec![NO_SPAN; self.height];
        let mut stack = Vec::new();
        let mut lines = Vec::new();
        let mut seen = 0;
        for start in 0..mask.len() {
            if !mask[start] {
                continue;
            }
            seen += 1;
            if seen > MAX_LINES {
                break;
            }
            let rows = self.fill(&mut mask, start, &mut stack, &mut spans);
            let mut points = Vec::with_capacity(2 * rows.len());
            for y in rows {
                let (left, right) = std::mem::replace(&mut spans[y], NO_SPAN);
                points.extend([left, right].map(|x| Point { x: x as f32, y: y as f32 }));
            }
            lines.extend(self.line(points));
        }
        lines
    }

    /// Pixels of text, each grown by one to the right and below.
    fn mask(&self) -> Vec<bool> {
        let mut mask = vec![false; self.values.len()];
        for (at, _) in self.values.iter().enumerate().filter(|(_, value)| **value > PIXEL) {
            let right = at % self.width + 1 < self.width;
            let below = at + self.width < mask.len();
            mask[at] = true;
            if right {
                mask[at + 1] = true;
            }
            if below {
                mask[at + self.width] = true;
            }
            if right && below {
                mask[at + self.width + 1] = true;
            }
        }
        mask
    }

    /// Take the pixels that hang together with `start` out of the mask; note the span of
    /// each row and return which rows they are in.
    fn fill(
        &self,
        mask: &mut [bool],
        start: usize,
        stack: &mut Vec<usize>,
        spans: &mut [Span],
    ) -> std::ops::Range<usize> {
        // The mask is searched from the top, so nothing of this region lies above.
        let (top, mut bottom) = (start / self.width, start / self.width);
        mask[start] = false;
        stack.push(start);
        while let Some(at) = stack.pop() {
            let (x, y) = (at % self.width, at / self.width);
            let span = &mut spans[y];
            *span = (span.0.min(x as i32), span.1.max(x as i32));
            bottom = bottom.max(y);
            for y in y.saturating_sub(1)..(y + 2).min(self.height) {
                for x in x.saturating_sub(1)..(x + 2).min(self.width) {
                    let next = y * self.width + x;
                    if std::mem::replace(&mut mask[next], false) {
                        stack.push(next);
                    }
                }
            }
        }
        top..bottom + 1
    }

    /// The line that a region stands for, if it is one.
    fn line(&self, points: Vec<Point>) -> Option<Quad> {
        let found = geometry::smallest_rectangle(&geometry::hull(points))?;
        if found.short_side < MIN_SIDE || self.mean(&found.corners) < LINE {
            return None;
        }
        let grown = grow(&found)?;
        (grown.short_side >= MIN_SIDE + 2.0).then_some(grown.corners)
    }

    /// Mean probability inside of a quadrilateral, its edge included.
    fn mean(&self, quad: &Quad) -> f32 {
        let quad = quad.map(|corner| Point { x: corner.x.trunc(), y: corner.y.trunc() });
        let edge = |get: fn(&Point) -> f32, size: usize| {
            let low = quad.iter().map(get).fold(f32::MAX, f32::min);
            let high = quad.iter().map(get).fold(f32::MIN, f32::max);
            let last = size as f32 - 1.0;
            (low.clamp(0.0, last) as usize, high.clamp(0.0, last) as usize)
        };
        let (top, bottom) = edge(|corner| corner.y, self.height);
        let (mut sum, mut count) = (0.0_f64, 0_u32);
        for y in top..=bottom {
            let Some((left, right)) = span(&quad, y as f32) else { continue };
            let left = left.round().max(0.0) as usize;
            let right = (right.round().max(0.0) as usize).min(self.width - 1);
            for x in left..=right {
                sum += f64::from(self.values[y * self.width + x]);
                count += 1;
            }
        }
        (sum / f64::from(count.max(1))) as f32
    }
}

/// Where a quadrilateral begins and ends in a row.
fn span(quad: &Quad, y: f32) -> Option<(f32, f32)> {
    let (mut left, mut right) = (f32::MAX, f32::MIN);
    for at in 0..4 {
        let (a, b) = (quad[at], quad[(at + 1) % 4]);
        if y < a.y.min(b.y) || y > a.y.max(b.y) {
            continue;
        }
        let ends =
            if a.y == b.y { [a.x, b.x] } else { [a.x + (b.x - a.x) * (y - a.y) / (b.y - a.y); 2] };
        left = left.min(ends[0]).min(ends[1]);
        right = right.max(ends[0]).max(ends[1]);
    }
    (left <= right).then_some((left, right))
}

/// The detector marks the middle of a line: give it back its height.
fn grow(found: &Rectangle) -> Option<Rectangle> {
    let (area, length) = geometry::measure(&found.corners);
    let corners = found.corners.map(|corner| Point { x: corner.x.trunc(), y: corner.y.trunc() });
    geometry::smallest_rectangle(&geometry::expanded(&corners, area * GROWTH / length))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A map with one box of probability 0.9.
    fn map_with(x: std::ops::Range<usize>, y: std::ops::Range<usize>) -> Vec<Quad> {
        let (width, height) = (200, 100);
        let mut values = vec![0.01; width * height];
        for row in y {
            values[row * width + x.start..row * width + x.end].fill(0.9);
        }
        Map { width, height, values: &values }.lines()
    }

    #[test]
    fn a_box_becomes_a_larger_line() {
        let lines = map_with(50..150, 40..52);
        assert_eq!(lines.len(), 1);
        // 100 by 12 pixels of text, 1.6 * 1200 / 224 = 8.6 more on each side.
        let [top_left, _, bottom_right, _] = lines[0];
        assert!((top_left.x - 41.0).abs() <= 1.0 && (top_left.y - 31.0).abs() <= 1.0, "{lines:?}");
        let far = (bottom_right.x - 159.0).abs() <= 1.0 && (bottom_right.y - 61.0).abs() <= 1.0;
        assert!(far, "{lines:?}");
    }

    #[test]
    fn specks_and_edges_are_survived() {
        assert!(map_with(10..11, 10..11).is_empty());
        assert_eq!(map_with(0..200, 0..100).len(), 1);
        assert_eq!(map_with(190..200, 90..100).len(), 1);
        assert!(map_with(0..0, 0..0).is_empty());
    }

    #[test]
    fn regions_that_touch_at_a_corner_are_one() {
        let (width, height) = (40, 40);
        let mut values = vec![0.0; width * height];
        for at in 0..20 {
            values[at * width + at..at * width + at + 8].fill(0.95);
        }
        assert_eq!(Map { width, height, values: &values }.lines().len(), 1);
    }
}
