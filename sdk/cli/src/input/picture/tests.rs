use super::*;

fn spec(datatype: Datatype, shape: &[i64]) -> TensorSpec {
    let dim = |&dim: &i64| u64::try_from(dim).map_or(Dim::Any, Dim::Fixed);
    TensorSpec { name: "x".into(), datatype, shape: shape.iter().map(dim).collect() }
}

fn how(normalize: &str, fit: Fit, channels: Channels) -> Pictures {
    Pictures { normalize: normalize.parse().unwrap(), fit, channels }
}

/// Left half red, right half blue.
fn picture(width: u32, height: u32) -> Vec<u8> {
    let colour = |x, _| image::Rgb(if x < width / 2 { [255, 0, 0] } else { [0, 0, 255] });
    let mut bytes = Vec::new();
    let image = RgbImage::from_fn(width, height, colour);
    image.write_to(&mut Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
    bytes
}

fn floats(shape: &[i64], size: (u32, u32), how: &Pictures) -> (Vec<u64>, Vec<f32>) {
    let spec = spec(Datatype::Fp32, shape);
    let layout = Layout::of(&spec).unwrap();
    let tensor = tensor(&picture(size.0, size.1), spec.datatype, layout, how).unwrap();
    (tensor.shape().to_vec(), tensor.as_slice::<f32>().unwrap().to_vec())
}

#[test]
fn layouts_are_read_from_shapes() {
    let cases: [(&[i64], Option<bool>); 7] = [
        (&[1, 3, 224, 224], Some(true)),
        (&[-1, 3, -1, -1], Some(true)),
        (&[-1, 224, 224, 3], Some(false)),
        (&[1, 28, 28], Some(true)),
        (&[28, 28, 1], Some(false)),
        (&[-1, -1], None),
        (&[2, 3, 4, 4], None),
    ];
    for (shape, channels_first) in cases {
        let layout = Layout::of(&spec(Datatype::Fp32, shape));
        assert_eq!(layout.map(|layout| layout.channels_first), channels_first, "{shape:?}");
    }
    assert_eq!(Layout::of(&spec(Datatype::Int64, &[1, 3, 4, 4])), None);
}

#[test]
fn channels_come_first_or_last_in_either_order() {
    let rgb = how("unit", Fit::Stretch, Channels::Rgb);
    let (shape, values) = floats(&[1, 3, 1, 2], (2, 1), &rgb);
    assert_eq!((shape, values), (vec![1, 3, 1, 2], vec![1.0, 0.0, 0.0, 0.0, 0.0, 1.0]));
    let bgr = how("none", Fit::Stretch, Channels::Bgr);
    let (shape, values) = floats(&[1, 2, 3], (2, 1), &bgr);
    // One row of 1 x 2 pixels read as [channels, height, width] = [1, 2, 3] is grey.
    assert_eq!((shape, values.len()), (vec![1, 2, 3], 6));
    let (shape, values) = floats(&[-1, -1, 2, 3], (2, 1), &bgr);
    assert_eq!((shape, values), (vec![1, 1, 2, 3], vec![0.0, 0.0, 255.0, 255.0, 0.0, 0.0]));
}

#[test]
fn values_are_normalised_as_asked() {
    let first = |normalize: &str| {
        let how = how(normalize, Fit::Stretch, Channels::Rgb);
        floats(&[3, 1, 2], (2, 1), &how).1[0]
    };
    assert_eq!(first("unit"), 1.0);
    assert_eq!(first("signed"), 1.0);
    assert_eq!(first("none"), 255.0);
    assert!((first("imagenet") - (1.0 - 0.485) / 0.229).abs() < 1e-6);
    assert_eq!(first("0.5/0.25"), 2.0);
    for bad in ["", "half", "1,2/3", "0.5/0", "a/b"] {
        assert!(bad.parse::<Normalize>().is_err(), "{bad}");
    }
}

#[test]
fn cropping_keeps_the_middle() {
    let crop = how("none", Fit::Crop, Channels::Rgb);
    let (shape, values) = floats(&[3, 2, 2], (8, 2), &crop);
    assert_eq!(shape, [3, 2, 2]);
    // Still red to the left and blue to the right.
    assert_eq!(values[..4], [255.0, 0.0, 255.0, 0.0]);
}

#[test]
fn damaged_pictures_are_errors() {
    let mut bytes = picture(8, 8);
    assert!(is_picture(&bytes));
    bytes.truncate(bytes.len() / 2);
    let layout = Layout::of(&spec(Datatype::Fp32, &[3, 8, 8])).unwrap();
    let how = how("unit", Fit::Stretch, Channels::Rgb);
    assert!(tensor(&bytes, Datatype::Fp32, layout, &how).is_err());
    assert!(!is_picture(b"no picture at all"));
}
