//! Two pictures, and what RapidOCR's text-orientation classifier takes and returns.
//!
//! Shared by the two foreign guests, so that they differ only in how they call
//! `wasi-nn`. Nothing here knows of wick or of WebAssembly.

use image::ImageError;

/// The classifier's input, for one picture: batch, channels, height, width.
pub const SHAPE: [u32; 4] = [1, 3, HEIGHT, WIDTH];

const HEIGHT: u32 = 48;
const WIDTH: u32 = 192;

/// A line of text with its file name.
#[derive(Debug, Clone, Copy)]
pub struct Picture {
    pub name: &'static str,
    png: &'static [u8],
}

/// A line the right way up, and the same line upside down.
pub const PICTURES: [Picture; 2] = [
    Picture { name: "upright.png", png: include_bytes!("../pictures/upright.png") },
    Picture { name: "rotated.png", png: include_bytes!("../pictures/rotated.png") },
];

// === impl Picture ===

impl Picture {
    /// The pictures that these arguments name; all if there are no arguments.
    pub fn chosen(arguments: &[String]) -> Vec<Self> {
        let wanted = |picture: &Self| {
            arguments.is_empty() || arguments.iter().any(|name| name == picture.name)
        };
        PICTURES.into_iter().filter(wanted).collect()
    }

    /// The pixels as the classifier takes them: planes in the order blue, green, red,
    /// values from -1 to 1.
    ///
    /// # Errors
    /// The file is no PNG.
    pub fn tensor(&self) -> Result<Vec<f32>, ImageError> {
        let picture = image::load_from_memory(self.png)?.into_rgb8();
        debug_assert_eq!(picture.dimensions(), (WIDTH, HEIGHT), "drawn in the model's size");
        let plane = |channel: usize| {
            picture.pixels().map(move |pixel| f32::from(pixel[channel]) / 127.5 - 1.0)
        };
        Ok(plane(2).chain(plane(1)).chain(plane(0)).collect())
    }
}

/// The more probable label, in degrees, and its probability.
///
/// ```
/// assert_eq!(orientation::label([0.25, 0.75]), (180, 0.75));
/// ```
pub fn label([upright, rotated]: [f32; 2]) -> (u32, f32) {
    if upright >= rotated { (0, upright) } else { (180, rotated) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_becomes_a_tensor_of_the_models_shape() {
        for picture in PICTURES {
            let values = picture.tensor().unwrap();
            assert_eq!(values.len(), SHAPE.iter().product::<u32>() as usize);
            assert!(values.iter().all(|value| (-1.0..=1.0).contains(value)));
        }
    }

    #[test]
    fn arguments_choose_pictures() {
        let names = |arguments: &[&str]| {
            let arguments: Vec<_> = arguments.iter().map(|&name| name.to_owned()).collect();
            Picture::chosen(&arguments).iter().map(|picture| picture.name).collect::<Vec<_>>()
        };
        assert_eq!(names(&[]), ["upright.png", "rotated.png"]);
        assert_eq!(names(&["rotated.png"]), ["rotated.png"]);
    }
}
