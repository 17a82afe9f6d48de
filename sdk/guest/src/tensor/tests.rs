use super::*;
use crate::{ErrorKind, bf16, f16};

fn survives<T: Element + PartialEq + fmt::Debug>(values: &[T]) {
    let shape = [values.len() as u64];
    let tensor = Tensor::new(&shape, values).unwrap();
    assert_eq!(tensor.datatype(), T::DATATYPE);
    assert_eq!(tensor.to_vec::<T>().unwrap(), values);
    assert_eq!(tensor.byte_size(), size_of_val(values) as u64);
}

#[test]
fn every_element_type_survives_a_tensor() {
    survives(&[true, false]);
    survives(&[0, u8::MAX]);
    survives(&[0, u16::MAX]);
    survives(&[0, u32::MAX]);
    survives(&[0, u64::MAX]);
    survives(&[i8::MIN, i8::MAX]);
    survives(&[i16::MIN, i16::MAX]);
    survives(&[i32::MIN, i32::MAX]);
    survives(&[i64::MIN, i64::MAX]);
    survives(&[f16::MIN, f16::MAX]);
    survives(&[bf16::MIN, bf16::MAX]);
    survives(&[f32::MIN, f32::INFINITY]);
    survives(&[f64::MIN, f64::INFINITY]);
}

#[test]
fn data_must_fit_datatype_and_shape() {
    let wrong = [
        (Datatype::Fp32, vec![2], vec![0; 7], "shape [2] of FP32 needs 8 bytes, and 7 were given"),
        (Datatype::Bool, vec![1], vec![2], "BOOL data holds the byte 2; only 0 and 1 are allowed"),
        (Datatype::Bytes, vec![1], vec![9, 0, 0, 0], "BYTES data of shape [1] breaks off"),
        (Datatype::Bytes, vec![1], vec![0; 8], "BYTES data of shape [1] is too long"),
        (Datatype::Uint8, vec![u64::MAX, 2], vec![], "too large"),
        (Datatype::Uint8, vec![0, u64::MAX, u64::MAX], vec![], "too large"),
        (Datatype::Uint8, vec![1; 17], vec![0], "17 dimensions"),
    ];
    for (datatype, shape, data, message) in wrong {
        let error = Tensor::from_bytes(datatype, &shape, &data).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadInput);
        assert!(error.message().contains(message), "{error} instead of {message}");
    }
}

#[test]
fn a_scalar_and_an_empty_tensor_are_tensors() {
    assert_eq!(Tensor::new(&[], [1.0_f64]).unwrap().len(), 1);
    let empty = Tensor::new(&[0, 4, 2], [0.0_f32; 0]).unwrap();
    assert!(empty.is_empty());
    assert_eq!(empty.to_vec::<f32>().unwrap(), [0.0; 0]);
    assert_eq!(Tensor::from_strings::<&str>(&[0], &[]).unwrap().to_strings().unwrap(), [""; 0]);
}

#[test]
fn bytes_that_lie_badly_are_copied() {
    let values = [1_u32, 2, 3];
    let mut bytes = vec![0];
    bytes.extend_from_slice(bytemuck::cast_slice(&values));
    assert_eq!(read_unaligned::<u32>(&bytes[1..]).unwrap(), values);
    assert_eq!(View::<bool>::of(vec![1, 7]).unwrap_err().kind(), ErrorKind::Internal);
}

#[test]
fn text_that_is_not_utf_8_blames_the_caller() {
    let tensor = Tensor::from_strings(&[1], &[[0xff_u8]]).unwrap();
    assert_eq!(tensor.to_byte_strings().unwrap(), [[0xff]]);
    assert_eq!(tensor.to_strings().unwrap_err().kind(), ErrorKind::BadInput);
}

#[test]
fn reading_past_the_end_reads_nothing() {
    let tensor = Tensor::new(&[2], [1_u8, 2]).unwrap();
    assert!(tensor.read(2, 1).is_empty());
    assert!(tensor.read(u64::MAX, u64::MAX).is_empty());
    assert!(tensor.view_range::<u8>(u64::MAX, 3).unwrap().is_empty());
}
