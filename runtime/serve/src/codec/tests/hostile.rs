//! Requests that are made to break a server.

use proptest::prelude::*;

use super::*;

#[test]
fn nesting_without_end_is_refused_and_does_not_end_the_stack() {
    let deep = "[".repeat(100_000);
    let closed = format!("{deep}{}", "]".repeat(100_000));
    for data in [&deep, &closed] {
        for text in input("FP32", "[1]", data) {
            assert!(json(&text).is_err());
        }
        for text in [
            format!(r#"{{"inputs":{data}}}"#),
            format!(r#"{{"inputs":[],"id":{data}}}"#),
            format!(r#"{{"inputs":[],"parameters":{{"a":{data}}}}}"#),
            format!(r#"{{"inputs":[{{"name":"x","shape":{data}}}]}}"#),
            format!(r#"{{"inputs":[],"outputs":{data}}}"#),
        ] {
            assert!(json(&text).is_err());
        }
    }
    // What nobody looks at is skipped, however deep.
    assert!(json(&format!(r#"{{"inputs":[],"unknown":{closed}}}"#)).is_ok());
    let objects = format!("{}1{}", r#"{"a":"#.repeat(100_000), "}".repeat(100_000));
    assert!(json(&format!(r#"{{"inputs":[],"unknown":{objects}}}"#)).is_ok());
    assert!(json(&objects).is_err());
}

#[test]
fn a_shape_is_bounded_before_anything_is_allocated() {
    let wrong = [
        ("[100000000000]", "[1]", "has 1 elements"),
        ("[1,100000000000]", "[[1]]", "an array of 1"),
        ("[18446744073709551615,2]", "[1]", "larger than"),
        ("[0,18446744073709551615,18446744073709551615]", "[]", "larger than"),
        ("[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "[1]", "more than 16 dimensions"),
    ];
    for (shape, data, why) in wrong {
        check_refused("FP32", shape, data, why);
        let header = format!(
            r#"{{"inputs":[{{"name":"x","shape":{shape},"datatype":"FP32","parameters":{{"binary_data_size":4}}}}]}}"#
        );
        assert!(mixed(&header, &[0; 4]).is_err(), "{shape}");
    }
}

#[test]
fn inputs_outputs_and_parameters_are_bounded_in_number() {
    let many =
        |item: fn(usize) -> String| (0..=MAX_TENSORS).map(item).collect::<Vec<_>>().join(",");
    let inputs = many(|n| format!(r#"{{"name":"{n}","shape":[0],"datatype":"UINT8","data":[]}}"#));
    let text = format!(r#"{{"inputs":[{inputs}]}}"#);
    refused(json(&text), "more than 512 inputs", &text);
    let outputs = many(|n| format!(r#"{{"name":"{n}"}}"#));
    let text = format!(r#"{{"inputs":[],"outputs":[{outputs}]}}"#);
    refused(json(&text), "more than 512 outputs", &text);
    let parameters = many(|n| format!(r#""{n}":1"#));
    let text = format!(r#"{{"inputs":[],"parameters":{{{parameters}}}}}"#);
    refused(json(&text), "more than 128 parameters", &text);
}

#[test]
fn errors_repeat_only_the_beginning_of_a_long_text() {
    let name = "é".repeat(1 << 20);
    let text = format!(r#"{{"inputs":[{{"name":"{name}","shape":[1],"datatype":"UINT8"}}]}}"#);
    assert!(json(&text).unwrap_err().to_string().len() < 300);
    let text = format!(r#"{{"inputs":[{{"name":"x","shape":[1],"datatype":"{name}"}}]}}"#);
    assert!(json(&text).unwrap_err().to_string().len() < 400);
}

#[test]
fn text_that_is_not_utf8_is_refused() {
    let body =
        b"{\"inputs\":[{\"name\":\"\xff\",\"shape\":[0],\"datatype\":\"UINT8\",\"data\":[]}]}";
    assert!(decode(None, &Bytes::from_static(body), &[]).is_err());
    // Of what is skipped too: the request is no JSON.
    let skipped: [&[u8]; 4] = [
        b"{\"inputs\":[],\n\"outputs\":[{\"name\":\"o\",\"other\":\"\xff\"}]}",
        b"{\"inputs\":[],\n\"other\":[1,{\"a\":\"\xff\"}]}",
        b"{\"inputs\":[],\n\"other\":{\"a\xff\":1,\"b\":[]}}",
        b"{\"inputs\":[{\n\"o\": \"abcdefghi\xc3\",\"name\":\"x\"}]}",
    ];
    for body in skipped {
        let refused = decode(None, &Bytes::from_static(body), &[]).unwrap_err();
        assert_eq!(refused.code(), "bad-json");
        let text = refused.to_string();
        assert!(text.contains("a string is not UTF-8 at line 2 column "), "{text}");
    }
    let body = "{\"inputs\":[],\"other\":\"\u{e9}\"}".as_bytes();
    assert!(decode(None, &Bytes::from_static(body), &[]).is_ok());
}

/// Bytes of a good request, with some changed, removed or doubled.
fn mutated() -> impl Strategy<Value = (Option<usize>, Vec<u8>)> {
    let header = r#"{"id":"a","parameters":{"timeout":5,"binary_data_output":true},"inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[[1,2.5],[-3e2,4]]},{"data":["a","\n"],"name":"s","shape":[2],"datatype":"BYTES"},{"name":"b","shape":[2],"datatype":"INT16","parameters":{"binary_data_size":4}}],"outputs":[{"name":"o","parameters":{"binary_data":false}}]}"#;
    let body = [header.as_bytes(), &[1, 2, 3, 4]].concat();
    let len = body.len();
    let edit = (0..len, any::<u8>(), 0..4_u8);
    (prop::collection::vec(edit, 0..6), prop::option::of(0..len + 3), any::<bool>()).prop_map(
        move |(edits, length, exact)| {
            let mut body = body.clone();
            for (at, byte, how) in edits {
                let at = at.min(body.len() - 1);
                match how {
                    0 => body[at] = byte,
                    1 => body[at] = b"[]{}\",:0129-.eEnN"[usize::from(byte) % 17],
                    2 => drop(body.remove(at)),
                    _ => body.insert(at, body[at]),
                }
            }
            (if exact { Some(len - 4) } else { length }, body)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn no_mutation_of_a_request_panics((header, body) in mutated()) {
        let spec = TensorSpec { name: "x".into(), datatype: Datatype::Fp32, shape: vec![Dim::Any] };
        if let Err(error) = decode(header, &Bytes::from(body), &[spec]) {
            prop_assert!(error.to_string().len() < 1000);
        }
    }

    #[test]
    fn no_bytes_panic(header in prop::option::of(0..100_usize), body in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = decode(header, &Bytes::from(body), &[]);
    }
}
