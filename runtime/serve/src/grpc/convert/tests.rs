//! Messages to requests and back: every datatype in both forms, what is refused, and that
//! no message panics.

use proptest::prelude::*;
use wick_package::Dim;

use super::*;

const ALL: [Datatype; 14] = [
    Datatype::Bool,
    Datatype::Uint8,
    Datatype::Uint16,
    Datatype::Uint32,
    Datatype::Uint64,
    Datatype::Int8,
    Datatype::Int16,
    Datatype::Int32,
    Datatype::Int64,
    Datatype::Fp16,
    Datatype::Bf16,
    Datatype::Fp32,
    Datatype::Fp64,
    Datatype::Bytes,
];

fn input(datatype: &str, shape: &[i64], contents: InferTensorContents) -> ModelInferRequest {
    let input = InferInputTensor {
        name: "x".to_owned(),
        datatype: datatype.to_owned(),
        shape: shape.to_vec(),
        contents: Some(contents),
        ..Default::default()
    };
    ModelInferRequest { inputs: vec![input], ..Default::default() }
}

fn raw(datatype: &str, shape: &[i64], bytes: &[u8]) -> ModelInferRequest {
    let mut message = input(datatype, shape, InferTensorContents::default());
    message.raw_input_contents = vec![Bytes::copy_from_slice(bytes)];
    message
}

fn check_refused(message: ModelInferRequest, why: &str) {
    let error = request(message).map(|decoded| decoded.request).expect_err(why).to_string();
    assert!(error.contains(why), "\n got: {error}\nwant: {why}");
}

/// Any tensor of a datatype.
fn tensor_of(datatype: Datatype, shape: &[u64], seed: &[u8]) -> Tensor {
    let count: u64 = shape.iter().product();
    let byte = |at: u64| seed.get(at as usize % seed.len().max(1)).copied().unwrap_or(0);
    if datatype == Datatype::Bytes {
        let strings: Vec<_> = (0..count).map(|at| vec![byte(at); byte(at) as usize % 5]).collect();
        return Tensor::from_strings(shape, &strings).unwrap();
    }
    let len = count * datatype.size().unwrap() as u64;
    let mask = if datatype == Datatype::Bool { 1 } else { 0xff };
    let data: Vec<u8> = (0..len).map(|at| byte(at) & mask).collect();
    Tensor::new(datatype, shape, data.into()).unwrap()
}

/// What a server answers, sent back to it as a request.
fn echoed(answer: ModelInferResponse) -> ModelInferRequest {
    let inputs = answer.outputs.into_iter().map(|output| InferInputTensor {
        name: output.name,
        datatype: output.datatype,
        shape: output.shape,
        contents: output.contents,
        ..Default::default()
    });
    ModelInferRequest {
        id: answer.id,
        parameters: answer.parameters,
        inputs: inputs.collect(),
        raw_input_contents: answer.raw_output_contents,
        ..Default::default()
    }
}

proptest! {
    #[test]
    fn every_datatype_goes_round_raw_and_typed(
        seed in prop::collection::vec(any::<u8>(), 0..64),
        shape in prop::collection::vec(0_u64..4, 0..4),
        is_raw in any::<bool>(),
    ) {
        for datatype in ALL {
            let tensor = tensor_of(datatype, &shape, &seed);
            let parameters = vec![
                ("b".to_owned(), Parameter::Bool(true)),
                ("f".to_owned(), Parameter::Float(0.5)),
                ("i".to_owned(), Parameter::Int(-7)),
                ("t".to_owned(), Parameter::Text("text".to_owned())),
            ];
            let outputs = vec![("y".to_owned(), tensor.clone())];
            let who = Identity { model: "m", version: "1", id: Some("17") };
            let answer = InferResponse { parameters: parameters.clone(), outputs };
            match response(who, answer, is_raw) {
                Ok(message) => {
                    let request = request(echoed(message)).unwrap().request;
                    prop_assert_eq!(request.id.as_deref(), Some("17"));
                    prop_assert_eq!(request.parameters, parameters);
                    prop_assert_eq!(request.inputs[0].1.data(), tensor.data());
                    prop_assert_eq!(&request.inputs[0].1, &tensor);
                }
                Err(error) => {
                    let half = matches!(datatype, Datatype::Fp16 | Datatype::Bf16);
                    prop_assert!(half && !is_raw, "{}: {}", datatype, error);
                }
            }
        }
    }

    #[test]
    fn no_message_panics(
        datatype in prop::sample::select(vec!["FP32", "INT8", "BYTES", "BOOL", "FP16", "nonsense"]),
        shape in prop::collection::vec(prop_oneof![-2_i64..4, any::<i64>()], 0..20),
        ints in prop::collection::vec(any::<i32>(), 0..5),
        strings in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..4), 0..4),
        raws in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..3),
    ) {
        let contents = InferTensorContents {
            int_contents: ints,
            bytes_contents: strings.into_iter().map(Bytes::from).collect(),
            ..Default::default()
        };
        let mut message = input(datatype, &shape, contents);
        message.raw_input_contents = raws.into_iter().map(Bytes::from).collect();
        let _ = request(message);
    }
}

#[test]
fn typed_contents_must_fit_datatype_and_shape() {
    let ints = |values: &[i32]| InferTensorContents {
        int_contents: values.to_vec(),
        ..Default::default()
    };
    let uints = |values: &[u32]| InferTensorContents {
        uint_contents: values.to_vec(),
        ..Default::default()
    };
    check_refused(input("INT32", &[2], ints(&[1])), "has 1 elements, and shape [2] needs 2");
    check_refused(input("INT32", &[1], ints(&[1, 2])), "has 2 elements");
    check_refused(input("INT32", &[2], InferTensorContents::default()), "has 0 elements");
    check_refused(input("INT8", &[1], ints(&[128])), "128 is out of range for INT8");
    check_refused(input("INT16", &[1], ints(&[-40_000])), "-40000 is out of range for INT16");
    check_refused(input("UINT8", &[1], uints(&[256])), "256 is out of range for UINT8");
    check_refused(input("UINT16", &[1], uints(&[70_000])), "70000 is out of range for UINT16");
    check_refused(input("FP32", &[1], ints(&[1])), "`int_contents` is not for FP32: use `fp32_c");
    check_refused(input("FP16", &[1], ints(&[1])), "use `raw_input_contents`");
    check_refused(input("FP16", &[1], InferTensorContents::default()), "has 0 elements");
    check_refused(input("FP8", &[1], ints(&[1])), "FP8");
}

#[test]
fn shapes_are_bounded_before_anything_is_made_for_them() {
    let none = InferTensorContents::default;
    check_refused(input("FP32", &[-1], none()), "size -1 in `shape` is below 0");
    check_refused(input("FP32", &[i64::MAX, i64::MAX], none()), "is larger than");
    check_refused(input("FP32", &[0, i64::MAX, i64::MAX], none()), "is larger than");
    check_refused(input("FP32", &[1; 17], none()), "more than 16 dimensions");
    check_refused(raw("FP32", &[1 << 40], &[0; 4]), "is larger than");
}

#[test]
fn raw_contents_must_fit_and_stand_alone() {
    check_refused(raw("FP32", &[2], &[0; 7]), "needs 8 bytes, and 7 were given");
    check_refused(raw("BOOL", &[1], &[2]), "only 0 and 1 are allowed");
    check_refused(raw("BYTES", &[1], &[9, 0, 0, 0, 1]), "breaks off");
    let mut both = raw("FP32", &[1], &[0; 4]);
    let contents = InferTensorContents { fp32_contents: vec![1.0], ..Default::default() };
    both.inputs[0].contents = Some(contents);
    check_refused(both, "has `fp32_contents` although the request has raw_input_contents");
    let mut more = raw("FP32", &[1], &[0; 4]);
    more.raw_input_contents.push(Bytes::new());
    check_refused(more, "has 1 inputs and 2 raw_input_contents");
}

#[test]
fn raw_contents_are_not_copied_where_they_are_aligned() {
    let mut message = raw("UINT8", &[4], &[1, 2, 3, 4]);
    let bytes = message.raw_input_contents[0].clone();
    let decoded = request(message.clone()).unwrap();
    assert_eq!(decoded.request.inputs[0].1.data().as_ptr(), bytes.as_ptr());
    message.inputs[0].contents = None;
    assert!(request(message).is_ok());
}

#[test]
fn what_rest_refuses_is_refused_here() {
    let mut twice = raw("UINT8", &[1], &[1]);
    twice.inputs.push(twice.inputs[0].clone());
    check_refused(twice, "input `x` comes twice");
    let text = InferParameter {
        parameter_choice: Some(ParameterChoice::StringParam("region".to_owned())),
    };
    let mut shared = raw("UINT8", &[1], &[1]);
    shared.inputs[0].parameters.insert(SHARED_MEMORY.to_owned(), text.clone());
    check_refused(shared, "shared memory is not supported");
    let wanted = InferRequestedOutputTensor { name: "y".to_owned(), ..Default::default() };
    let mut outputs = raw("UINT8", &[1], &[1]);
    outputs.outputs = vec![wanted.clone(), wanted.clone()];
    check_refused(outputs, "output `y`: comes twice");
    let mut classes = raw("UINT8", &[1], &[1]);
    let parameters = [("classification".to_owned(), text)].into();
    classes.outputs = vec![InferRequestedOutputTensor { parameters, ..wanted }];
    check_refused(classes, "classification is not supported");
    let mut large = raw("UINT8", &[1], &[1]);
    let choice = Some(ParameterChoice::Uint64Param(u64::MAX));
    large.parameters.insert("n".to_owned(), InferParameter { parameter_choice: choice });
    check_refused(large.clone(), "parameter `n` must fit into 64 bits with sign");
    large.parameters.insert("n".to_owned(), InferParameter::default());
    check_refused(large, "parameter `n` has no value");
}

#[test]
fn a_half_float_that_is_wanted_typed_is_refused_before_it_is_computed() {
    let half = TensorSpec { name: "y".into(), datatype: Datatype::Fp16, shape: vec![Dim::Any] };
    let wanted = |names: &[&str], raw| {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        wanted_form_is_possible(std::slice::from_ref(&half), &names, raw)
    };
    assert!(wanted(&[], false).is_err() && wanted(&["y"], false).is_err());
    assert!(wanted(&[], true).is_ok() && wanted(&["z"], false).is_ok());
}
