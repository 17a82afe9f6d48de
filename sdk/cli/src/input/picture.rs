//! Pictures as tensors: decoded, resized to the input's height and width, scaled, and
//! laid out as the model wants them.

use std::io::Cursor;
use std::str::FromStr;

use bytes::Bytes;
use image::{ImageReader, Limits, RgbImage, imageops};
use wick_nn::Tensor;
use wick_package::{Datatype, Dim, TensorSpec};

/// Largest side of a picture, in pixels: beyond what cameras make.
const MAX_SIDE: u32 = 1 << 15;

/// Most memory that decoding may take.
const MAX_ALLOC: u64 = 1 << 30;

/// Mean and standard deviation of ImageNet's pictures, which most classifiers expect.
const IMAGENET: Normalize =
    Normalize { whole: 255.0, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };

/// How pictures become numbers.
#[derive(Debug, Clone, clap::Args)]
pub struct Pictures {
    /// How pixel values become floats: `unit` (0 to 1), `signed` (-1 to 1), `none` (0 to 255),
    /// `imagenet`, or MEAN/STD on the unit scale, for instance 0.5,0.5,0.5/0.5,0.5,0.5
    #[arg(long, value_name = "HOW", default_value = "unit")]
    normalize: Normalize,
    /// How a picture gets the input's height and width
    #[arg(long, value_enum, default_value = "stretch")]
    fit: Fit,
    /// Order of the colour channels
    #[arg(long, value_enum, default_value = "rgb")]
    channels: Channels,
}

/// Value = (pixel / whole - mean) / std, for each channel.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Normalize {
    /// What a pixel value of 1 is; a division, as elsewhere, so that results are equal.
    whole: f32,
    mean: [f32; 3],
    std: [f32; 3],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Fit {
    /// Change the aspect ratio.
    Stretch,
    /// Cut what is too wide or too high, at both ends.
    Crop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Channels {
    Rgb,
    Bgr,
}

/// Where channels, height and width are in an input's shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    channels: u32,
    channels_first: bool,
    /// None: the picture's own.
    height: Option<u32>,
    width: Option<u32>,
    /// Whether there is a batch dimension before.
    batch: bool,
}

// === impl Normalize ===

impl FromStr for Normalize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let same = |whole, mean, std| Self { whole, mean: [mean; 3], std: [std; 3] };
        Ok(match text {
            "unit" => same(255.0, 0.0, 1.0),
            "signed" => same(127.5, 1.0, 1.0),
            "none" => same(1.0, 0.0, 1.0),
            "imagenet" => IMAGENET,
            _ => {
                let wrong = "write unit, signed, none, imagenet or MEAN,MEAN,MEAN/STD,STD,STD";
                let (mean, std) = text.split_once('/').ok_or(wrong)?;
                let (mean, std) = (triple(mean).ok_or(wrong)?, triple(std).ok_or(wrong)?);
                if std.contains(&0.0) {
                    return Err("a standard deviation of 0 divides by zero".to_owned());
                }
                Self { whole: 255.0, mean, std }
            }
        })
    }
}

fn triple(text: &str) -> Option<[f32; 3]> {
    let values: Option<Vec<f32>> = text.split(',').map(|part| part.trim().parse().ok()).collect();
    match values?[..] {
        [one] => Some([one; 3]),
        [red, green, blue] => Some([red, green, blue]),
        _ => None,
    }
}

// === impl Layout ===

impl Layout {
    /// Read `[N,C,H,W]`, `[N,H,W,C]`, `[C,H,W]` or `[H,W,C]` from a specification, with
    /// 1 or 3 channels; none if it is no picture's.
    pub fn of(spec: &TensorSpec) -> Option<Self> {
        let numeric = [Datatype::Uint8, Datatype::Fp16, Datatype::Fp32];
        if !numeric.contains(&spec.datatype) {
            return None;
        }
        let (batch, dims) = match spec.shape[..] {
            [batch, a, b, c] if batch.accepts(1) => (true, [a, b, c]),
            [a, b, c] => (false, [a, b, c]),
            _ => return None,
        };
        let channels = |dim| match dim {
            Dim::Fixed(1) => Some(1),
            Dim::Fixed(3) => Some(3),
            _ => None,
        };
        let side = |dim| match dim {
            Dim::Any => Some(None),
            Dim::Fixed(size) => {
                u32::try_from(size).ok().filter(|side| (1..=MAX_SIDE).contains(side)).map(Some)
            }
        };
        let [first, second, third] = dims;
        let (channels, channels_first, height, width) = match (channels(first), channels(third)) {
            (Some(channels), _) => (channels, true, second, third),
            (None, Some(channels)) => (channels, false, first, second),
            (None, None) => return None,
        };
        let (height, width) = (side(height)?, side(width)?);
        Some(Self { channels, channels_first, height, width, batch })
    }
}

/// Whether the bytes are of a format that can be decoded.
pub fn is_picture(bytes: &[u8]) -> bool {
    image::guess_format(bytes).is_ok_and(|format| format.reading_enabled())
}

/// Decode a picture into a tensor.
///
/// # Errors
/// It is damaged or too large.
pub fn tensor(
    bytes: &[u8],
    datatype: Datatype,
    layout: Layout,
    how: &Pictures,
) -> Result<Tensor, String> {
    let picture = decode(bytes)?;
    let width = layout.width.unwrap_or_else(|| picture.width());
    let height = layout.height.unwrap_or_else(|| picture.height());
    let picture = resize(picture, width, height, how.fit);
    let values = samples(&picture, layout, how.channels);
    let mut shape = match layout.channels_first {
        true => vec![layout.channels, height, width],
        false => vec![height, width, layout.channels],
    };
    if layout.batch {
        shape.insert(0, 1);
    }
    let shape: Vec<u64> = shape.into_iter().map(u64::from).collect();
    let float = |(value, channel): (u8, usize)| {
        let Normalize { whole, mean, std } = how.normalize;
        (f32::from(value) / whole - mean[channel]) / std[channel]
    };
    let tensor = match datatype {
        Datatype::Fp16 => {
            let values = values.into_iter().map(|sample| half::f16::from_f32(float(sample)));
            Tensor::from_vec(&shape, values.collect())
        }
        Datatype::Fp32 => Tensor::from_vec(&shape, values.into_iter().map(float).collect()),
        _ => {
            let values: Vec<u8> = values.into_iter().map(|(value, _)| value).collect();
            Tensor::new(datatype, &shape, Bytes::from(values))
        }
    };
    tensor.map_err(|error| error.to_string())
}

fn decode(bytes: &[u8]) -> Result<RgbImage, String> {
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|error| error.to_string())?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_ALLOC);
    reader.limits(limits);
    let picture = reader.decode().map_err(|error| format!("the picture is damaged: {error}"))?;
    Ok(picture.into_rgb8())
}

fn resize(picture: RgbImage, width: u32, height: u32, fit: Fit) -> RgbImage {
    if picture.dimensions() == (width, height) {
        return picture;
    }
    let picture = match fit {
        Fit::Stretch => picture,
        Fit::Crop => crop(&picture, width, height),
    };
    imageops::resize(&picture, width, height, imageops::FilterType::Triangle)
}

/// The largest part in the middle with the wanted aspect ratio.
fn crop(picture: &RgbImage, width: u32, height: u32) -> RgbImage {
    let (have_width, have_height) = picture.dimensions();
    let (w, h) = (u64::from(width), u64::from(height));
    let (hw, hh) = (u64::from(have_width), u64::from(have_height));
    let (cut_width, cut_height) =
        if hw * h > hh * w { ((hh * w / h).max(1), hh) } else { (hw, (hw * h / w).max(1)) };
    // Both are at most the picture's own sides, which are 32-bit numbers.
    let cut_width = u32::try_from(cut_width).unwrap_or(have_width);
    let cut_height = u32::try_from(cut_height).unwrap_or(have_height);
    let (x, y) = ((have_width - cut_width) / 2, (have_height - cut_height) / 2);
    imageops::crop_imm(picture, x, y, cut_width, cut_height).to_image()
}

/// Pixel values in the layout's order, each with the index of its mean and deviation,
/// which follow the order of the channels.
fn samples(picture: &RgbImage, layout: Layout, order: Channels) -> Vec<(u8, usize)> {
    let pixels = || picture.pixels().map(|pixel| pixel.0);
    let pick = move |[red, green, blue]: [u8; 3], channel: usize| match (layout.channels, order) {
        (1, _) => grey([red, green, blue]),
        (_, Channels::Rgb) => [red, green, blue][channel],
        (_, Channels::Bgr) => [blue, green, red][channel],
    };
    let channels = layout.channels as usize;
    if layout.channels_first {
        let plane = |channel| pixels().map(move |pixel| (pick(pixel, channel), channel));
        (0..channels).flat_map(plane).collect()
    } else {
        let each = |pixel| (0..channels).map(move |channel| (pick(pixel, channel), channel));
        pixels().flat_map(each).collect()
    }
}

/// Brightness by ITU-R BT.601, as picture libraries have it.
fn grey([red, green, blue]: [u8; 3]) -> u8 {
    let sum = 299 * u32::from(red) + 587 * u32::from(green) + 114 * u32::from(blue);
    u8::try_from((sum + 500) / 1000).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests;
