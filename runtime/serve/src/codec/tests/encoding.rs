//! Responses, and that what is written can be read again.

use proptest::prelude::*;
use wick_engine::InferResponse;

use super::*;

const WHO: Identity<'_> = Identity { model: "m", version: "1.2.0", id: Some("7") };

fn written(outputs: Vec<(&str, Tensor)>, wants: &Wants) -> Result<(String, Vec<u8>), EncodeError> {
    let outputs = outputs.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect();
    let response = InferResponse { parameters: Vec::new(), outputs };
    let encoded = encode(WHO, &response, wants)?;
    assert_eq!(encoded.header.unwrap_or(encoded.chunks[0].len()), encoded.chunks[0].len());
    assert_eq!(encoded.header.is_some(), encoded.chunks.len() > 1);
    let json = String::from_utf8(encoded.chunks[0].to_vec()).unwrap();
    Ok((json, encoded.chunks[1..].concat()))
}

#[test]
fn json_outputs_are_written_flat() {
    let outputs = vec![
        ("f", Tensor::from_vec(&[1, 3], vec![1.0_f32, 0.1, -2.5e-8]).unwrap()),
        ("i", Tensor::from_vec(&[2], vec![i64::MIN, 7]).unwrap()),
        ("b", Tensor::new(Datatype::Bool, &[2], Bytes::from_static(&[1, 0])).unwrap()),
        ("s", Tensor::from_strings(&[2], &["a\"", "é"]).unwrap()),
        ("none", Tensor::from_vec(&[0], Vec::<u8>::new()).unwrap()),
    ];
    let (json, binary) = written(outputs, &Wants::default()).unwrap();
    let want = concat!(
        r#"{"model_name":"m","model_version":"1.2.0","id":"7","outputs":["#,
        r#"{"name":"f","datatype":"FP32","shape":[1,3],"data":[1.0,0.1,-2.5e-8]},"#,
        r#"{"name":"i","datatype":"INT64","shape":[2],"data":[-9223372036854775808,7]},"#,
        r#"{"name":"b","datatype":"BOOL","shape":[2],"data":[true,false]},"#,
        r#"{"name":"s","datatype":"BYTES","shape":[2],"data":["a\"","é"]},"#,
        r#"{"name":"none","datatype":"UINT8","shape":[0],"data":[]}]}"#,
    );
    assert_eq!(json, want);
    assert!(binary.is_empty());
}

#[test]
fn binary_outputs_follow_the_json_in_its_order() {
    let outputs = vec![
        ("b", Tensor::from_vec(&[2], vec![1_u16, 2]).unwrap()),
        ("j", Tensor::from_vec(&[1], vec![5_u8]).unwrap()),
        ("h", Tensor::from_vec(&[1], vec![half::bf16::ONE]).unwrap()),
    ];
    let wants = Wants { binary: true, outputs: vec![("j".to_owned(), false)] };
    let (json, binary) = written(outputs, &wants).unwrap();
    assert_eq!(binary, [1, 0, 2, 0, 0x80, 0x3f]);
    assert!(json.contains(r#""parameters":{"binary_data_size":4}}"#), "{json}");
    assert!(json.contains(r#""name":"j","datatype":"UINT8","shape":[1],"data":[5]}"#), "{json}");
}

#[test]
fn big_binary_outputs_are_not_copied() {
    let tensor = Tensor::from_vec(&[1000], vec![1.0_f32; 1000]).unwrap();
    let response =
        InferResponse { outputs: vec![("x".into(), tensor.clone())], ..Default::default() };
    let wants = Wants { binary: true, ..Default::default() };
    let encoded = encode(WHO, &response, &wants).unwrap();
    assert_eq!(encoded.chunks[1].as_ptr(), tensor.data().as_ptr());
}

#[test]
fn outputs_that_json_cannot_hold_say_to_ask_for_binary_data() {
    let wrong = [
        Tensor::from_vec(&[2], vec![1.0, f32::NAN]).unwrap(),
        Tensor::from_vec(&[1], vec![f64::NEG_INFINITY]).unwrap(),
        Tensor::from_vec(&[1], vec![half::f16::ONE]).unwrap(),
        Tensor::from_strings(&[1], &[b"\xff"]).unwrap(),
    ];
    for tensor in wrong {
        let error = written(vec![("x", tensor.clone())], &Wants::default()).unwrap_err();
        assert!(error.to_string().contains("ask for binary data"), "{error}");
        let wants = Wants { binary: true, ..Default::default() };
        assert!(written(vec![("x", tensor)], &wants).is_ok());
    }
}

#[test]
fn a_half_float_as_json_is_refused_before_it_is_computed() {
    let spec = |name: &str, datatype| TensorSpec { name: name.into(), datatype, shape: vec![] };
    let specs = [spec("f", Datatype::Fp32), spec("h", Datatype::Fp16)];
    let wants = |binary| Wants { binary, ..Default::default() };
    let possible = |wanted: &[&str], wants: &Wants| {
        let wanted: Vec<_> = wanted.iter().map(|&name| name.to_owned()).collect();
        wanted_json_is_possible(&specs, &wanted, wants).is_ok()
    };
    assert!(!possible(&[], &wants(false)));
    assert!(!possible(&["h"], &wants(false)));
    assert!(possible(&["f"], &wants(false)));
    assert!(possible(&[], &wants(true)));
}

#[test]
fn parameters_and_absent_ids_are_written_as_they_are() {
    let parameters = vec![
        ("b".to_owned(), Parameter::Bool(true)),
        ("i".to_owned(), Parameter::Int(-1)),
        ("f".to_owned(), Parameter::Float(0.5)),
        ("t".to_owned(), Parameter::Text("x".to_owned())),
    ];
    let response = InferResponse { parameters, outputs: Vec::new() };
    let encoded = encode(Identity { id: None, ..WHO }, &response, &Wants::default()).unwrap();
    let want = r#"{"model_name":"m","model_version":"1.2.0","parameters":{"b":true,"i":-1,"f":0.5,"t":"x"},"outputs":[]}"#;
    assert_eq!(encoded.chunks[0], want);
}

/// What a response writes as a tensor's data is read as the same tensor.
fn survives(tensor: &Tensor) {
    let (json, _) = written(vec![("x", tensor.clone())], &Wants::default()).unwrap();
    let inputs = json.replace("\"outputs\"", "\"inputs\"");
    let decoded = super::json(&inputs).unwrap();
    assert_eq!(decoded.request.inputs, [("x".to_owned(), tensor.clone())], "{json}");
}

proptest! {
    #[test]
    fn numbers_survive_json(
        floats in prop::collection::vec(prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL | prop::num::f32::ZERO, 0..50),
        wide in prop::collection::vec(any::<i64>(), 0..50),
        bytes in prop::collection::vec(any::<u8>(), 0..50),
        strings in prop::collection::vec(".{0,8}", 0..20),
    ) {
        survives(&Tensor::from_vec(&[floats.len() as u64], floats).unwrap());
        survives(&Tensor::from_vec(&[wide.len() as u64], wide).unwrap());
        survives(&Tensor::from_vec(&[1, bytes.len() as u64], bytes).unwrap());
        survives(&Tensor::from_strings(&[strings.len() as u64], &strings).unwrap());
    }
}
