//! The codec's tests: what decodes to what, what is refused and why, and what is
//! written.

mod encoding;
mod hostile;

use bytes::Bytes;
use wick_engine::Parameter;
use wick_nn::Tensor;
use wick_package::{Datatype, Dim, TensorSpec};

use super::*;

fn json(text: &str) -> Result<Decoded, DecodeError> {
    decode(None, &Bytes::from(text.to_owned()), &[])
}

/// A JSON header followed by binary data.
fn mixed(header: &str, binary: &[u8]) -> Result<Decoded, DecodeError> {
    let body = [header.as_bytes(), binary].concat();
    decode(Some(header.len()), &Bytes::from(body), &[])
}

/// One input with this datatype, shape and data; the keys in both orders.
fn input(datatype: &str, shape: &str, data: &str) -> [String; 2] {
    let meta = format!(r#""datatype":"{datatype}","shape":{shape}"#);
    [
        format!(r#"{{"inputs":[{{"name":"x",{meta},"data":{data}}}]}}"#),
        format!(r#"{{"inputs":[{{"data":{data},"name":"x",{meta}}}]}}"#),
    ]
}

fn check(datatype: &str, shape: &str, data: &str, want: &Tensor) {
    for text in input(datatype, shape, data) {
        let decoded = json(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(decoded.request.inputs.len(), 1);
        let (name, got) = &decoded.request.inputs[0];
        assert_eq!((name.as_str(), got.shape()), ("x", want.shape()), "{text}");
        assert_eq!(got, want, "{text}");
    }
}

fn check_refused(datatype: &str, shape: &str, data: &str, why: &str) {
    for text in input(datatype, shape, data) {
        refused(json(&text), why, &text);
    }
}

fn refused(got: Result<Decoded, DecodeError>, why: &str, text: &str) {
    let error = got.map(|decoded| decoded.request).expect_err(text).to_string();
    let text = clip(text);
    assert!(error.contains(why), "{text}\n got: {error}\nwant: {why}");
}

#[test]
fn every_json_datatype_is_decoded_into_its_own_type() {
    check("UINT8", "[2]", "[0,255]", &Tensor::from_vec(&[2], vec![0_u8, 255]).unwrap());
    check("UINT16", "[2]", "[0,65535]", &Tensor::from_vec(&[2], vec![0_u16, 65535]).unwrap());
    check("UINT32", "[1]", "[4294967295]", &Tensor::from_vec(&[1], vec![u32::MAX]).unwrap());
    let most = Tensor::from_vec(&[1], vec![u64::MAX]).unwrap();
    check("UINT64", "[1]", "[18446744073709551615]", &most);
    check("INT8", "[2]", "[-128,127]", &Tensor::from_vec(&[2], vec![-128_i8, 127]).unwrap());
    check("INT16", "[1]", "[-32768]", &Tensor::from_vec(&[1], vec![i16::MIN]).unwrap());
    check("INT32", "[1]", "[-2147483648]", &Tensor::from_vec(&[1], vec![i32::MIN]).unwrap());
    let least = Tensor::from_vec(&[1], vec![i64::MIN]).unwrap();
    check("INT64", "[1]", "[-9223372036854775808]", &least);
    let floats = Tensor::from_vec(&[4], vec![1.5_f32, -0.0, 3.0, 1e-3]).unwrap();
    check("FP32", "[4]", "[1.5,-0.0,3,1e-3]", &floats);
    check("FP64", "[2]", "[0.1,1e300]", &Tensor::from_vec(&[2], vec![0.1_f64, 1e300]).unwrap());
    let bools = Tensor::new(Datatype::Bool, &[2], Bytes::from_static(&[1, 0])).unwrap();
    check("BOOL", "[2]", "[true,false]", &bools);
    let strings = Tensor::from_strings(&[2], &["a\"é\u{1F600}", ""]).unwrap();
    check("BYTES", "[2]", r#"["a\"\u00e9😀",""]"#, &strings);
}

#[test]
fn data_may_be_flat_or_nested_as_its_shape() {
    let want = Tensor::from_vec(&[2, 3], vec![1_i64, 2, 3, 4, 5, 6]).unwrap();
    for data in ["[1,2,3,4,5,6]", "[[1,2,3],[4,5,6]]", " [ [1 ,2,3 ] ,\n[4,5,6]]"] {
        check("INT64", "[2,3]", data, &want);
    }
    let deep = Tensor::from_vec(&[1, 1, 1, 2], vec![1_u8, 2]).unwrap();
    check("UINT8", "[1,1,1,2]", "[[[[1,2]]]]", &deep);
    check("UINT8", "[]", "[7]", &Tensor::from_vec(&[], vec![7_u8]).unwrap());
    let empty = Tensor::from_vec(&[2, 0], Vec::<f32>::new()).unwrap();
    check("FP32", "[2,0]", "[]", &empty);
    check("FP32", "[2,0]", "[[],[]]", &empty);
}

#[test]
fn data_that_does_not_fit_its_shape_is_refused() {
    let wrong = [
        ("[2]", "[1]", "has 1 elements, and shape [2] needs 2"),
        ("[2]", "[1,2,3]", "more elements than shape [2]"),
        ("[2,2]", "[[1,2],[3]]", "an array of 1, and its shape is [2, 2]"),
        ("[2,2]", "[[1,2,3],[4]]", "an array of 3"),
        ("[2,2]", "[[1],[2],[3],[4]]", "an array of 1"),
        ("[2,2]", "[1,2,[3],4]", "deeper than others"),
        ("[2,2]", "[[1,2],3,4]", "deeper than others"),
        ("[4]", "[[1,2,3,4]]", "nested deeper than its shape"),
        ("[1,2,2]", "[[1,2],[3,4]]", "is nested 2 deep"),
        ("[1]", "7", "must be an array"),
        ("[1]", "null", "expected `data`"),
        ("[1]", "{}", "expected `data`"),
        ("[]", "[[7]]", "nested deeper"),
        ("[0]", "[1]", "more elements"),
    ];
    for (shape, data, why) in wrong {
        check_refused("INT32", shape, data, why);
    }
}

#[test]
fn an_element_that_its_datatype_cannot_hold_is_refused() {
    let wrong = [
        ("UINT8", "300", "300 is out of range for UINT8"),
        ("UINT8", "-1", "-1 is out of range for UINT8"),
        ("INT8", "128", "out of range for INT8"),
        ("UINT64", "18446744073709551616", "is not a value of UINT64"),
        ("INT64", "9223372036854775808", "out of range for INT64"),
        ("INT32", "1.5", "1.5 is not a value of INT32"),
        ("FP32", "1e39", "out of range for FP32"),
        ("FP64", "1e999", "number out of range"),
        ("FP32", "true", "true is not a value of FP32"),
        ("FP32", "null", "invalid type: null"),
        ("BOOL", "1", "1 is not a value of BOOL"),
        ("BYTES", "1", "1 is not a value of BYTES"),
        ("UINT8", "\"1\"", "a string is not a value of UINT8"),
        ("FP16", "1", "FP16 has no JSON form"),
        ("BF16", "1", "BF16 has no JSON form"),
    ];
    for (datatype, data, why) in wrong {
        check_refused(datatype, "[1]", &format!("[{data}]"), why);
    }
}

#[test]
fn nan_and_infinity_are_refused_with_their_place_and_a_way_out() {
    for token in ["NaN", "Infinity", "-Infinity", "-NaN"] {
        for text in input("FP32", "[2]", &format!("[1.0,{token}]")) {
            refused(json(&text), "send the tensor as binary data", &text);
            refused(json(&text), "at line 1 column", &text);
        }
    }
}

#[test]
fn everything_else_of_a_request_is_read() {
    let decoded = json(
        r#"{"future":[{"a":[1,{}]}],"id":"7","parameters":{"timeout":1500,"binary_data_output":true,
            "k":1,"f":0.5,"s":"t","b":false},
            "inputs":[{"name":"x","shape":[1],"datatype":"UINT8","parameters":{"x":1},"data":[1],"y":{}}],
            "outputs":[{"name":"a","parameters":{"binary_data":false}},{"name":"b"}]}"#,
    )
    .unwrap();
    assert_eq!(decoded.request.id.as_deref(), Some("7"));
    assert_eq!(decoded.timeout, Some(Duration::from_micros(1500)));
    assert_eq!(decoded.request.outputs, ["a", "b"]);
    assert!(decoded.wants.binary("b") && !decoded.wants.binary("a"));
    let mut parameters = decoded.request.parameters;
    parameters.sort_by(|a, b| a.0.cmp(&b.0));
    let want = [
        ("b".to_owned(), Parameter::Bool(false)),
        ("f".to_owned(), Parameter::Float(0.5)),
        ("k".to_owned(), Parameter::Int(1)),
        ("s".to_owned(), Parameter::Text("t".to_owned())),
    ];
    assert_eq!(parameters, want);

    let nulls = r#"{"id":null,"parameters":null,"outputs":null,"inputs":[]}"#;
    let decoded = json(nulls).unwrap();
    assert_eq!((decoded.timeout, decoded.wants.binary("x")), (None, false));
}

#[test]
fn requests_with_missing_or_wrong_parts_are_refused() {
    let wrong = [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("[]", "an inference request"),
        ("{}", "`inputs` is missing"),
        (r#"{"inputs":[]} x"#, "something follows the request at line 1 column 15"),
        (r#"{"inputs":{}}"#, "`inputs`: an array"),
        (r#"{"inputs":[],"inputs":[]}"#, "`inputs` comes twice"),
        (r#"{"id":"a","inputs":[],"id":null}"#, "`id` comes twice"),
        (r#"{"parameters":null,"inputs":[],"parameters":{}}"#, "`parameters` comes twice"),
        (r#"{"outputs":[{"name":"a"}],"inputs":[],"outputs":null}"#, "`outputs` comes twice"),
        (r#"{"inputs":[{"parameters":{},"parameters":{}}]}"#, "`parameters` comes twice"),
        (r#"{"inputs":[],"id":7}"#, "expected a string"),
        (r#"{"inputs":[],"parameters":{"a":[]}}"#, "a parameter that is"),
        (r#"{"inputs":[],"parameters":{"a":1,"a":2}}"#, "parameter `a` twice"),
        (r#"{"inputs":[],"parameters":{"timeout":-1}}"#, "`timeout` must be a whole number"),
        (r#"{"inputs":[],"parameters":{"binary_data_output":1}}"#, "must be true or false"),
        (r#"{"inputs":[{"shape":[1],"datatype":"UINT8","data":[1]}]}"#, "an input has no `name`"),
        (r#"{"inputs":[{"name":"x","datatype":"UINT8","data":[1]}]}"#, "an input has no `shape`"),
        (r#"{"inputs":[{"name":"x","shape":[1],"data":[1]}]}"#, "an input has no `datatype`"),
        (r#"{"inputs":[{"name":"x","shape":[1],"datatype":"UINT8"}]}"#, "has neither `data`"),
        (r#"{"inputs":[{"name":"x","shape":[1],"datatype":"fp32","data":[1]}]}"#, "not a datatype"),
        (r#"{"inputs":[{"name":"x","shape":[-1],"datatype":"UINT8","data":[1]}]}"#, ">= 0"),
        (r#"{"inputs":[{"name":"x","shape":[1.0],"datatype":"UINT8","data":[1]}]}"#, ">= 0"),
        (r#"{"inputs":[],"outputs":[{"name":"a"},{"name":"a"}]}"#, "output `a`: comes twice"),
        (
            r#"{"inputs":[],"outputs":[{"name":"a","parameters":{"classification":3}}]}"#,
            "classification is not supported",
        ),
        (
            r#"{"inputs":[{"name":"x","shape":[1],"datatype":"UINT8","data":[1],"datatype":"INT8"}]}"#,
            "`datatype` comes twice",
        ),
        (
            r#"{"inputs":[{"name":"x","shape":[1],"datatype":"UINT8","data":[1]},
                {"name":"x","shape":[1],"datatype":"UINT8","data":[1]}]}"#,
            "input `x` comes twice",
        ),
        (
            r#"{"inputs":[{"name":"x","shape":[1],"datatype":"UINT8",
                "parameters":{"shared_memory_region":"r"}}]}"#,
            "shared memory is not supported",
        ),
    ];
    for (text, why) in wrong {
        refused(json(text), why, text);
    }
}

#[test]
fn binary_inputs_are_slices_of_the_body_and_mix_with_json() {
    let header = r#"{"inputs":[
        {"name":"b","shape":[2],"datatype":"UINT8","parameters":{"binary_data_size":2}},
        {"name":"j","shape":[1],"datatype":"INT32","data":[5]},
        {"name":"h","shape":[1],"datatype":"FP16","parameters":{"binary_data_size":2}},
        {"name":"s","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":5}}]}"#;
    let binary = [&[1, 2, 0, 0x3c][..], &1_u32.to_le_bytes(), b"z"].concat();
    let body = Bytes::from([header.as_bytes(), &binary].concat());
    let decoded = decode(Some(header.len()), &body, &[]).unwrap();
    let inputs = decoded.request.inputs;
    assert_eq!(inputs.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(), ["b", "j", "h", "s"]);
    assert_eq!(inputs[0].1.data().as_ptr(), body[header.len()..].as_ptr(), "it was copied");
    assert_eq!(inputs[1].1.as_slice::<i32>(), Some(&[5][..]));
    assert_eq!(inputs[2].1.as_slice::<half::f16>().unwrap()[0].to_f32(), 1.0);
    assert_eq!(inputs[3].1.strings().unwrap().collect::<Vec<_>>(), [b"z"]);
}

#[test]
fn binary_sizes_and_header_lengths_that_do_not_fit_are_refused() {
    let one = |size: &str| {
        format!(
            r#"{{"inputs":[{{"name":"x","shape":[4],"datatype":"UINT8","parameters":{{"binary_data_size":{size}}}}}]}}"#
        )
    };
    let wrong: [(&str, &[u8], &str); 6] = [
        ("4", &[0; 3], "more than the 3 bytes that are left"),
        ("4", &[0; 5], "1 bytes more than its inputs declare"),
        ("3", &[0; 3], "needs 4 bytes, and 3 were given"),
        ("-4", &[0; 4], "must be a whole number"),
        ("\"4\"", &[0; 4], "must be a whole number"),
        ("9223372036854775807", &[0; 4], "more than the 4 bytes"),
    ];
    for (size, binary, why) in wrong {
        refused(mixed(&one(size), binary), why, size);
    }
    let text = one("4");
    refused(json(&text), "is Inference-Header-Content-Length right?", &text);
    let past = decode(Some(9), &Bytes::from_static(b"{}"), &[]);
    assert_eq!(past.map(drop), Err(DecodeError::HeaderPastBody { header: 9, body: 2 }));
    let both = r#"{"inputs":[{"name":"x","shape":[1],"datatype":"UINT8","data":[1],"parameters":{"binary_data_size":1}}]}"#;
    refused(mixed(both, &[1]), "has both", both);
    let bools = r#"{"inputs":[{"name":"x","shape":[1],"datatype":"BOOL","parameters":{"binary_data_size":1}}]}"#;
    refused(mixed(bools, &[2]), "only 0 and 1", bools);
}

#[test]
fn a_raw_body_is_the_only_input_with_its_shape_computed() {
    let spec = |datatype, shape: &[i64]| TensorSpec {
        name: "x".into(),
        datatype,
        shape: shape.iter().map(|&dim| u64::try_from(dim).map_or(Dim::Any, Dim::Fixed)).collect(),
    };
    let raw = |spec: &TensorSpec, bytes: usize| {
        let body = Bytes::from(vec![0; bytes]);
        decode(Some(0), &body, std::slice::from_ref(spec))
    };
    let good = [
        (Datatype::Uint8, &[-1][..], 10, &[10_u64][..]),
        (Datatype::Fp32, &[1, -1, 2], 24, &[1, 3, 2]),
        (Datatype::Fp32, &[2, 2], 16, &[2, 2]),
        (Datatype::Bytes, &[1], 3, &[1]),
        (Datatype::Bytes, &[-1, 1], 3, &[1, 1]),
        (Datatype::Uint8, &[-1], 0, &[0]),
    ];
    for (datatype, shape, bytes, want) in good {
        let decoded = raw(&spec(datatype, shape), bytes).unwrap();
        assert_eq!(decoded.request.inputs[0].1.shape(), want, "{shape:?}");
        assert!(decoded.wants.binary("anything"));
    }
    for (shape, bytes) in [(&[-1, -1][..], 8), (&[3, -1], 8), (&[2], 7), (&[0, -1], 0)] {
        assert!(raw(&spec(Datatype::Uint8, shape), bytes).is_err(), "{shape:?}");
    }
    let two = [spec(Datatype::Uint8, &[-1]), spec(Datatype::Uint8, &[-1])];
    assert!(decode(Some(0), &Bytes::new(), &two).is_err());
    assert!(decode(Some(0), &Bytes::new(), &[]).is_err());
}
