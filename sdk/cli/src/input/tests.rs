use wick_package::Dim;

use super::*;

fn spec(name: &str, datatype: Datatype, shape: &[i64]) -> TensorSpec {
    let dim = |&dim: &i64| u64::try_from(dim).map_or(Dim::Any, Dim::Fixed);
    TensorSpec { name: name.into(), datatype, shape: shape.iter().map(dim).collect() }
}

fn pictures() -> Pictures {
    #[derive(clap::Parser)]
    struct Only {
        #[command(flatten)]
        pictures: Pictures,
    }
    <Only as clap::Parser>::parse_from(["wick"]).pictures
}

fn written(spec: &TensorSpec, text: &str) -> Result<Tensor, String> {
    tensor(spec, Source::Text(text.to_owned()), &pictures())
}

fn file(spec: &TensorSpec, path: &str, bytes: &'static [u8]) -> Result<Tensor, String> {
    tensor(spec, Source::File(path.to_owned(), Bytes::from_static(bytes)), &pictures())
}

#[test]
fn written_values_take_the_datatype_and_shape_of_the_input() {
    let x = spec("x", Datatype::Fp32, &[-1, 2]);
    assert_eq!(written(&x, "[1, 2]").unwrap().shape(), [1, 2]);
    assert_eq!(written(&x, "[[1,2],[3,4]]").unwrap().shape(), [2, 2]);
    assert!(written(&x, "[1, 2, 3]").is_err());
    assert!(written(&x, "cat").is_err());
    let scalar = spec("x", Datatype::Int64, &[1]);
    assert_eq!(written(&scalar, "-7").unwrap().as_slice(), Some(&[-7_i64][..]));
    let text = spec("x", Datatype::Bytes, &[-1]);
    assert_eq!(written(&text, "a b").unwrap().data()[4..], b"a b"[..]);
    assert_eq!(written(&text, "[\"a\",\"b\"]").unwrap().shape(), [2]);
}

#[test]
fn files_become_what_the_input_takes() {
    let bytes = spec("x", Datatype::Uint8, &[-1]);
    assert_eq!(file(&bytes, "a.json", b"[1]").unwrap().data()[..], b"[1]"[..]);
    let string = spec("x", Datatype::Bytes, &[1]);
    assert_eq!(file(&string, "a.txt", b"\xff").unwrap().data()[..], b"\x01\0\0\0\xff"[..]);
    let numbers = spec("x", Datatype::Fp32, &[1, 2]);
    assert_eq!(file(&numbers, "a.json", b"[1, 2]").unwrap().as_slice(), Some(&[1_f32, 2.0][..]));
    assert_eq!(file(&numbers, "a.bin", &[0; 8]).unwrap().shape(), [1, 2]);
    assert!(file(&numbers, "a.bin", &[0; 7]).is_err());
    assert!(file(&numbers, "a.bin", &[0; 12]).is_err());
}

#[test]
fn names_may_be_left_out_only_where_there_is_one_input() {
    let one = [spec("x", Datatype::Fp32, &[1])];
    let two = [spec("x", Datatype::Fp32, &[1]), spec("y", Datatype::Fp32, &[1])];
    assert_eq!(name_and_value("3", &one).unwrap().1, "3");
    assert_eq!(name_and_value("@a=b.bin", &one).unwrap().1, "@a=b.bin");
    assert_eq!(name_and_value("y=3", &two).unwrap().0.name, "y");
    assert!(name_and_value("3", &two).is_err());
    assert!(name_and_value("z=3", &one).is_err());
}

#[test]
fn missing_inputs_are_named_together() {
    let two = [spec("x", Datatype::Fp32, &[1]), spec("y", Datatype::Int32, &[-1, 4])];
    let failure = check_complete(&InferRequest::default(), &two).unwrap_err();
    let text = format!("{failure:?}");
    assert!(text.contains("x FP32 [1], y INT32 [-1, 4]"), "{text}");
}
