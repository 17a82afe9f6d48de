//! Points, hulls and rectangles.

/// A point of a picture, in pixels: x to the right, y down.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Point {
    pub(crate) x: f32,
    pub(crate) y: f32,
}

/// Four corners, clockwise from the top left.
pub(crate) type Quad = [Point; 4];

/// A rectangle that may be turned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rectangle {
    pub(crate) corners: Quad,
    pub(crate) short_side: f32,
}

// === impl Point ===

impl Point {
    /// Distance to another point.
    pub(crate) fn distance(self, other: Self) -> f32 {
        (self.x - other.x).hypot(self.y - other.y)
    }
}

/// The convex hull of points, without those on its edges.
pub(crate) fn hull(mut points: Vec<Point>) -> Vec<Point> {
    points.sort_by(|a, b| a.x.total_cmp(&b.x).then(a.y.total_cmp(&b.y)));
    points.dedup();
    if points.len() < 3 {
        return points;
    }
    let mut hull: Vec<Point> = Vec::with_capacity(points.len());
    // Once along the lower side, once back along the upper one.
    for pass in 0..2 {
        let start = hull.len();
        let side: Box<dyn Iterator<Item = &Point>> =
            if pass == 0 { Box::new(points.iter()) } else { Box::new(points.iter().rev()) };
        for &point in side {
            while hull.len() >= start + 2
                && turn(hull[hull.len() - 2], hull[hull.len() - 1], point) <= 0.0
            {
                hull.pop();
            }
            hull.push(point);
        }
        // The last point of a side is the first of the next.
        hull.pop();
    }
    hull
}

/// The smallest rectangle round a convex hull: one of its sides lies on one of the
/// hull's. None for less than two points.
pub(crate) fn smallest_rectangle(hull: &[Point]) -> Option<Rectangle> {
    let mut best: Option<(f32, Rectangle)> = None;
    for (at, &from) in hull.iter().enumerate() {
        let to = hull[(at + 1) % hull.len()];
        let length = from.distance(to);
        if length == 0.0 {
            continue;
        }
        let along = Point { x: (to.x - from.x) / length, y: (to.y - from.y) / length };
        let (area, rectangle) = rectangle_along(hull, along);
        if best.is_none_or(|(smallest, _)| area < smallest) {
            best = Some((area, rectangle));
        }
    }
    best.map(|(_, rectangle)| rectangle)
}

/// Area and rectangle with one side in this direction.
fn rectangle_along(hull: &[Point], along: Point) -> (f32, Rectangle) {
    let (mut low, mut high) = ([f32::MAX; 2], [f32::MIN; 2]);
    for point in hull {
        let place = [point.x * along.x + point.y * along.y, point.y * along.x - point.x * along.y];
        for axis in 0..2 {
            low[axis] = low[axis].min(place[axis]);
            high[axis] = high[axis].max(place[axis]);
        }
    }
    let sides = [high[0] - low[0], high[1] - low[1]];
    let corner =
        |u: f32, v: f32| Point { x: u * along.x - v * along.y, y: u * along.y + v * along.x };
    let corners = ordered([
        corner(low[0], low[1]),
        corner(high[0], low[1]),
        corner(high[0], high[1]),
        corner(low[0], high[1]),
    ]);
    (sides[0] * sides[1], Rectangle { corners, short_side: sides[0].min(sides[1]) })
}

/// Clockwise from the top left: of the two leftmost corners the upper one first.
pub(crate) fn ordered(mut corners: Quad) -> Quad {
    corners.sort_by(|a, b| a.x.total_cmp(&b.x));
    let [a, b, c, d] = corners;
    let (top_left, bottom_left) = if a.y <= b.y { (a, b) } else { (b, a) };
    let (top_right, bottom_right) = if c.y <= d.y { (c, d) } else { (d, c) };
    [top_left, top_right, bottom_right, bottom_left]
}

/// A convex polygon moved outwards by `distance`, with round corners: the hull of the
/// result, on whole pixels.
pub(crate) fn expanded(polygon: &[Point], distance: f32) -> Vec<Point> {
    /// Points of a full circle: a corner is off by less than a quarter of a pixel up to
    /// a distance of 200.
    const ROUND: u32 = 64;
    let turn = std::f32::consts::TAU / ROUND as f32;
    let mut points = Vec::with_capacity(polygon.len() * (ROUND as usize + 2));
    for (at, &corner) in polygon.iter().enumerate() {
        let mut push = |x: f32, y: f32| {
            let place = Point { x: corner.x + distance * x, y: corner.y + distance * y };
            points.push(Point { x: place.x.round(), y: place.y.round() });
        };
        for step in 0..ROUND {
            let (sin, cos) = (turn * step as f32).sin_cos();
            push(cos, sin);
        }
        // Exactly outwards from the two edges that meet here, whichever way round the
        // polygon goes: the wrong side is inside the hull.
        for other in
            [polygon[(at + 1) % polygon.len()], polygon[(at + polygon.len() - 1) % polygon.len()]]
        {
            let length = corner.distance(other);
            if length > 0.0 {
                let (x, y) = ((other.x - corner.x) / length, (other.y - corner.y) / length);
                push(y, -x);
                push(-y, x);
            }
        }
    }
    hull(points)
}

/// Area and length of the edge of a polygon.
pub(crate) fn measure(polygon: &[Point]) -> (f32, f32) {
    let (mut twice, mut length) = (0.0, 0.0);
    for (at, &from) in polygon.iter().enumerate() {
        let to = polygon[(at + 1) % polygon.len()];
        twice += from.x * to.y - to.x * from.y;
        length += from.distance(to);
    }
    (twice.abs() / 2.0, length)
}

/// Positive for a turn to the left in a coordinate system with y upwards.
fn turn(a: Point, b: Point, c: Point) -> f32 {
    (b.x - a.x) * (c.y - a.y) - (b.y - a.y) * (c.x - a.x)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(x: f32, y: f32) -> Point {
        Point { x, y }
    }

    #[test]
    fn the_hull_of_a_grid_is_its_corners() {
        let grid = (0..5).flat_map(|x| (0..3).map(move |y| at(x as f32, y as f32))).collect();
        assert_eq!(hull(grid), [at(0.0, 0.0), at(4.0, 0.0), at(4.0, 2.0), at(0.0, 2.0)]);
        assert_eq!(hull(vec![at(1.0, 1.0); 4]), [at(1.0, 1.0)]);
    }

    #[test]
    fn the_smallest_rectangle_round_a_turned_square_is_that_square() {
        let square = hull(vec![at(2.0, 0.0), at(4.0, 2.0), at(2.0, 4.0), at(0.0, 2.0)]);
        let rectangle = smallest_rectangle(&square).unwrap();
        assert!((rectangle.short_side - 8.0_f32.sqrt()).abs() < 1e-4);
        assert!(smallest_rectangle(&[at(1.0, 1.0)]).is_none());
        assert_eq!(smallest_rectangle(&[at(1.0, 1.0), at(5.0, 1.0)]).unwrap().short_side, 0.0);
    }

    #[test]
    fn an_expanded_rectangle_grows_by_the_distance_on_every_side() {
        let corners = [at(10.0, 10.0), at(50.0, 10.0), at(50.0, 30.0), at(10.0, 30.0)];
        let grown = smallest_rectangle(&expanded(&corners, 5.0)).unwrap().corners;
        assert_eq!(grown, [at(5.0, 5.0), at(55.0, 5.0), at(55.0, 35.0), at(5.0, 35.0)]);
        assert_eq!(measure(&corners), (800.0, 120.0));
    }
}
