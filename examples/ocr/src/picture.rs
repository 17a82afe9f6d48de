//! Pictures: decoding, resizing, and the way back to the original's coordinates.

use std::io::Cursor;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder as _, ImageError, ImageReader, Limits, RgbaImage};
use wick_guest::{Error, Result};

use crate::geometry::Point;

/// Most pixels of a picture. A photograph of 24 million takes 72 MB when it is decoded.
const MAX_PIXELS: u64 = 24_000_000;

/// Most memory that a decoder may take, in bytes.
const MAX_DECODER_BYTES: u64 = 128 << 20;

/// Longer side that larger pictures are reduced to, in pixels.
pub(crate) const MAX_SIDE: u32 = 2000;

/// Shorter side that smaller pictures are enlarged to, in pixels.
const SMALL_SIDE: u32 = 30;

/// Pictures flatter than this, width by height, get room above and below: the detector
/// does not see text that touches both edges.
const FLAT: f32 = 8.0;

/// Sides of what a detector takes are multiples of this.
const STEP: f32 = 32.0;

/// Pixels in rows, each blue, green, red: the order that the models were trained on.
#[derive(Clone)]
pub(crate) struct Picture {
    pub(crate) width: u32,
    pub(crate) height: u32,
    // Invariant: 3 * width * height bytes, and neither side is zero.
    pub(crate) pixels: Vec<u8>,
}

/// Where a fitted picture lies in its original.
pub(crate) struct Placed {
    scale: Point,
    padding: f32,
    original: Point,
}

// === impl Picture ===

impl Picture {
    /// Decode a PNG or JPEG file, turned as its metadata says.
    pub(crate) fn decode(file: &[u8]) -> Result<Self> {
        let mut reader = ImageReader::new(Cursor::new(file)).with_guessed_format()?;
        let mut limits = Limits::default();
        limits.max_alloc = Some(MAX_DECODER_BYTES);
        reader.limits(limits);
        let mut decoder = reader.into_decoder().map_err(refused)?;
        let (width, height) = decoder.dimensions();
        if width == 0 || height == 0 {
            return Err(Error::bad_input("the picture has no pixels"));
        }
        if u64::from(width) * u64::from(height) > MAX_PIXELS {
            return Err(Error::too_large(format_args!(
                "the picture has {width} by {height} pixels; at most {MAX_PIXELS} are read"
            )));
        }
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        let mut image = DynamicImage::from_decoder(decoder).map_err(refused)?;
        image.apply_orientation(orientation);
        let (width, height) = (image.width(), image.height());
        let mut pixels = if image.color().has_alpha() {
            on_contrast(&image.into_rgba8())
        } else {
            image.into_rgb8().into_raw()
        };
        for pixel in pixels.as_chunks_mut::<3>().0 {
            pixel.swap(0, 2);
        }
        Ok(Self { width, height, pixels })
    }

    /// In a size that the detector is good at, with room above and below flat ones.
    pub(crate) fn fitted(self) -> (Self, Placed) {
        let original = Point { x: self.width as f32, y: self.height as f32 };
        let mut picture = self;
        let (long, short) = (picture.width.max(picture.height), picture.width.min(picture.height));
        if long > MAX_SIDE {
            picture = picture.scaled(MAX_SIDE as f32 / long as f32);
        } else if short < SMALL_SIDE {
            picture = picture.scaled(SMALL_SIDE as f32 / short as f32);
        }
        let scale =
            Point { x: original.x / picture.width as f32, y: original.y / picture.height as f32 };
        let padding = picture.padding();
        (picture.padded(padding), Placed { scale, padding: padding as f32, original })
    }

    /// Resized to these sides by linear interpolation between the centres of pixels.
    pub(crate) fn resized(&self, width: u32, height: u32) -> Self {
        if (width, height) == (self.width, self.height) {
            return self.clone();
        }
        let columns = taps(self.width, width);
        let rows = taps(self.height, height);
        let mut pixels = Vec::with_capacity(3 * width as usize * height as usize);
        for &(top, bottom, down) in &rows {
            let (top, bottom) = (self.row(top), self.row(bottom));
            for &(left, right, across) in &columns {
                for channel in 0..3 {
                    let (left, right) = (3 * left + channel, 3 * right + channel);
                    let above = mix(f32::from(top[left]), f32::from(top[right]), across);
                    let below = mix(f32::from(bottom[left]), f32::from(bottom[right]), across);
                    pixels.push((mix(above, below, down) + 0.5) as u8);
                }
            }
        }
        Self { width, height, pixels }
    }

    /// The pixel nearest to these coordinates.
    pub(crate) fn nearest(&self, x: i32, y: i32) -> [u8; 3] {
        let x = x.clamp(0, self.width as i32 - 1) as usize;
        let y = y.clamp(0, self.height as i32 - 1) as usize;
        let at = 3 * (y * self.width as usize + x);
        [self.pixels[at], self.pixels[at + 1], self.pixels[at + 2]]
    }

    /// Write the pixels, from -1 to 1, into three planes whose rows are `stride` long.
    pub(crate) fn write_planes(&self, planes: &mut [f32], stride: usize) {
        let plane = planes.len() / 3;
        for (y, row) in self.pixels.chunks_exact(3 * self.width as usize).enumerate() {
            for (x, pixel) in row.as_chunks::<3>().0.iter().enumerate() {
                for (channel, &value) in pixel.iter().enumerate() {
                    planes[channel * plane + y * stride + x] = f32::from(value) / 127.5 - 1.0;
                }
            }
        }
    }

    fn row(&self, y: usize) -> &[u8] {
        let len = 3 * self.width as usize;
        &self.pixels[y * len..(y + 1) * len]
    }

    fn scaled(&self, ratio: f32) -> Self {
        let side = |side: u32| whole_steps((side as f32 * ratio).floor());
        self.resized(side(self.width), side(self.height))
    }

    /// Rows to add above and below.
    fn padding(&self) -> u32 {
        let (width, height) = (self.width as f32, self.height as f32);
        if self.height > SMALL_SIDE && width / height <= FLAT {
            return 0;
        }
        let wanted = 2 * ((width / FLAT) as u32).max(SMALL_SIDE);
        wanted.abs_diff(self.height) / 2
    }

    fn padded(mut self, rows: u32) -> Self {
        if rows == 0 {
            return self;
        }
        let room = 3 * self.width as usize * rows as usize;
        let mut pixels = vec![0; room];
        pixels.append(&mut self.pixels);
        pixels.resize(pixels.len() + room, 0);
        Self { width: self.width, height: self.height + 2 * rows, pixels }
    }
}

// === impl Placed ===

impl Placed {
    /// A point of the fitted picture in the original.
    pub(crate) fn original(&self, at: Point) -> Point {
        Point {
            x: (at.x * self.scale.x).clamp(0.0, self.original.x),
            y: ((at.y - self.padding) * self.scale.y).clamp(0.0, self.original.y),
        }
    }
}

/// The nearest multiple of 32, and not zero.
pub(crate) fn whole_steps(side: f32) -> u32 {
    ((side / STEP).round_ties_even() * STEP).max(STEP) as u32
}

/// For each of `to` positions the two of `from` that it lies between, and how far.
fn taps(from: u32, to: u32) -> Vec<(usize, usize, f32)> {
    let scale = from as f32 / to as f32;
    let last = from as usize - 1;
    let tap = |at: u32| {
        let place = ((at as f32 + 0.5) * scale - 0.5).clamp(0.0, last as f32);
        let first = place as usize;
        (first, (first + 1).min(last), place - first as f32)
    };
    (0..to).map(tap).collect()
}

fn mix(a: f32, b: f32, part: f32) -> f32 {
    a + (b - a) * part
}

/// A transparent picture on white if it is dark, and on black if it is light.
fn on_contrast(image: &RgbaImage) -> Vec<u8> {
    let (mut light, mut count) = (0.0_f64, 0_u32);
    for pixel in image.pixels().filter(|pixel| pixel[3] > 0) {
        let [red, green, blue] = [pixel[0], pixel[1], pixel[2]].map(f64::from);
        light += 0.299 * red + 0.587 * green + 0.114 * blue;
        count += 1;
    }
    let dark = count == 0 || light / f64::from(count) < 128.0;
    let ground = if dark { 255.0 } else { 0.0 };
    let blend = |pixel: &image::Rgba<u8>| {
        let alpha = f32::from(pixel[3]) / 255.0;
        [pixel[0], pixel[1], pixel[2]].map(|value| mix(ground, f32::from(value), alpha) as u8)
    };
    image.pixels().flat_map(blend).collect()
}

fn refused(error: ImageError) -> Error {
    match error {
        ImageError::Limits(error) => {
            Error::too_large(format_args!("the picture takes too much memory: {error}"))
        }
        error => Error::bad_input(format_args!("`picture` is no PNG or JPEG file: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wick_guest::ErrorKind;

    fn plain(width: u32, height: u32) -> Picture {
        let pixels = (0..3 * width * height).map(|at| (at % 251) as u8).collect();
        Picture { width, height, pixels }
    }

    #[test]
    fn resizing_keeps_a_plain_colour_and_the_mean() {
        let grey = Picture { width: 7, height: 5, pixels: vec![99; 105] };
        assert!(grey.resized(20, 9).pixels.iter().all(|&value| value == 99));
        let two = Picture { width: 2, height: 1, pixels: vec![0, 0, 0, 100, 100, 100] };
        let four: Vec<u8> = two.resized(4, 1).pixels.iter().step_by(3).copied().collect();
        assert_eq!(four, [0, 25, 75, 100]);
    }

    #[test]
    fn points_of_a_fitted_picture_go_back_to_the_original() {
        let (fitted, placed) = plain(4000, 1000).fitted();
        assert_eq!((fitted.width, fitted.height), (1984, 512));
        let corner = placed.original(Point { x: 1984.0, y: 512.0 });
        assert_eq!((corner.x, corner.y), (4000.0, 1000.0));

        let (flat, placed) = plain(800, 40).fitted();
        assert_eq!((flat.width, flat.height), (800, 200));
        let corner = placed.original(Point { x: 5.0, y: 100.0 });
        assert_eq!((corner.x, corner.y), (5.0, 20.0));
    }

    #[test]
    fn what_is_no_picture_is_the_callers_mistake() {
        for file in [&b""[..], b"GIF89a", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0 broken"] {
            let error = Picture::decode(file).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::BadInput, "{error}");
        }
    }

    #[test]
    fn transparent_pixels_show_a_contrast() {
        let mut image = RgbaImage::from_pixel(2, 1, image::Rgba([0, 0, 0, 255]));
        image.put_pixel(1, 0, image::Rgba([0, 0, 0, 0]));
        assert_eq!(on_contrast(&image), [0, 0, 0, 255, 255, 255]);
    }
}
