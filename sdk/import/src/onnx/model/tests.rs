use std::io::Cursor;

use proptest::prelude::*;
use wick_package::{Datatype, Dim};
use wick_testing::onnx;

use super::*;

fn read(bytes: &[u8]) -> Result<Model, ModelError> {
    Model::read(Cursor::new(bytes))
}

fn shown(declared: &[Declared]) -> Vec<String> {
    let one = |declared: &Declared| match declared.spec() {
        Some(spec) => format!("{} {} {}", spec.name, spec.datatype, spec.shape_text()),
        None => format!("{} {}", declared.name, declared.datatype),
    };
    declared.iter().map(one).collect()
}

/// A reader that counts what is read of it.
struct Counting<'a>(Cursor<&'a [u8]>, &'a std::cell::Cell<usize>);

impl Read for Counting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.0.read(buffer)?;
        self.1.set(self.1.get() + count);
        Ok(count)
    }
}

impl Seek for Counting<'_> {
    fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
        self.0.seek(to)
    }
}

#[test]
fn names_datatypes_and_shapes_are_those_of_the_graph() {
    let model = read(&onnx::add_scalar(1.0, &[-1, 4])).unwrap();
    assert_eq!(shown(&model.inputs), ["x FP32 [-1, 4]"]);
    assert_eq!(shown(&model.outputs), ["y FP32 [-1, 4]"]);
    for datatype in Datatype::ALL {
        let model = read(&onnx::identity(datatype, &[2, -1])).unwrap();
        assert_eq!(model.inputs[0].datatype, datatype);
        assert_eq!(model.inputs[0].shape, Some(vec![Dim::Fixed(2), Dim::Any]));
    }
    let model = read(&onnx::subtract(&[3])).unwrap();
    assert_eq!(shown(&model.inputs), ["a FP32 [3]", "b FP32 [3]"]);
}

#[test]
fn an_input_without_a_shape_is_told_as_one() {
    let model = read(&onnx::without_shape()).unwrap();
    assert_eq!(shown(&model.inputs), ["x FP32"]);
}

#[test]
fn outputs_of_branches_are_not_those_of_the_model() {
    let model = read(&onnx::with_if()).unwrap();
    assert_eq!(shown(&model.inputs), ["cond BOOL []", "x FP32 [2]"]);
    assert_eq!(shown(&model.outputs), ["y FP32 [2]"]);
}

#[test]
fn weights_are_not_read() {
    let bytes = onnx::resnet50_shaped();
    let counted = std::cell::Cell::new(0);
    let model = Model::read(Counting(Cursor::new(&bytes), &counted)).unwrap();
    assert_eq!(model.len, bytes.len() as u64);
    assert!(!model.inputs.is_empty());
    assert!(counted.get() < bytes.len() / 20, "{} of {}", counted.get(), bytes.len());
}

#[test]
fn files_beside_the_model_are_found() {
    let model = read(&onnx::external_data("parts/weights.bin")).unwrap();
    let files: Vec<_> = model.external_files().into_iter().map(|f| f.to_string()).collect();
    assert_eq!(files, ["parts/weights.bin"]);
    let Inner::Message(parts) = &model.parts[0].inner else { panic!("{:?}", model.parts) };
    let Inner::Tensor(external) = &parts[0].inner else { panic!("{parts:?}") };
    assert_eq!((external.offset, external.length), (0, Some(16)));
    assert!(read(&onnx::dense(8, 2)).unwrap().external_files().is_empty());
}

#[test]
fn weights_outside_of_the_models_folder_are_refused() {
    for location in ["/etc/passwd", "../secret", "a/../../b", ""] {
        let error = read(&onnx::external_data(location)).unwrap_err();
        assert!(matches!(error, ModelError::Outside { .. }), "{location}: {error}");
        assert!(error.to_string().contains("`weights`"), "{error}");
    }
    assert!(read(&onnx::external_data("./weights.bin")).is_ok());
}

#[test]
fn what_is_no_model_is_refused() {
    for bytes in [&b""[..], b"not a model at all", b"\x08\x08", b"\x08\x08\x3a\x00"] {
        assert!(read(bytes).is_err(), "{bytes:?}");
    }
    let whole = onnx::dense(8, 2);
    assert!(read(&whole[..whole.len() - 7]).is_err(), "cut short");
    assert!(matches!(read(&nested(200)), Err(ModelError::Deep)));
}

/// A graph whose node has a branch, whose node has a branch, and so on.
fn nested(levels: usize) -> Vec<u8> {
    let field = onnx::field;
    let inner = (0..levels).fold(Vec::new(), |graph, _| field(1, &field(5, &field(6, &graph))));
    field(7, &inner)
}

proptest! {
    #[test]
    fn any_bytes_are_a_model_or_an_error(bytes: Vec<u8>) {
        let _ = read(&bytes);
    }

    #[test]
    fn a_damaged_model_is_a_model_or_an_error(at: prop::sample::Index, byte: u8) {
        let mut bytes = onnx::external_data("weights.bin");
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(model) = read(&bytes) {
            let sizes = model.external_files().into_iter().map(|file| (file, 16)).collect();
            let _ = crate::onnx::Plan::new(&model, &sizes);
        }
    }
}
