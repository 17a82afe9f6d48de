//! Compressed bodies over a router, in process.

use std::io::{Read as _, Write as _};

use axum::body::Body;
use flate2::Compression;
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use http::Request;
use serde_json::json;
use wick_package::Datatype;
use wick_testing::onnx;

use crate::support::{Fixture, Reply, four};

const INFER: &str = "/v2/models/m/infer";
const CODINGS: [&str; 3] = ["gzip", "deflate", "zstd"];

/// Numbers of a request whose answer is worth compressing.
const COUNT: usize = 4096;

fn small(coding: &str, plain: &[u8]) -> Vec<u8> {
    let level = Compression::default();
    match coding {
        "gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), level);
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
        "deflate" => {
            let mut encoder = ZlibEncoder::new(Vec::new(), level);
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
        "zstd" => zstd::encode_all(plain, 3).unwrap(),
        other => panic!("{other}"),
    }
}

fn plain(coding: &str, small: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    match coding {
        "gzip" => GzDecoder::new(small).read_to_end(&mut plain),
        "deflate" => ZlibDecoder::new(small).read_to_end(&mut plain),
        "zstd" => zstd::Decoder::new(small).unwrap().read_to_end(&mut plain),
        other => panic!("{other}"),
    }
    .unwrap();
    plain
}

async fn large() -> Fixture {
    let model = onnx::add_scalar(1.0, &[COUNT as i64]);
    Fixture::new(&[("m", &model, "request = \"256KiB\"")]).await
}

/// A JSON header, and as many numbers as the model takes in binary.
fn binary() -> (String, Vec<u8>) {
    let header = json!({
        "parameters": { "binary_data_output": true },
        "inputs": [{
            "name": "x", "shape": [COUNT], "datatype": "FP32",
            "parameters": { "binary_data_size": COUNT * 4 },
        }],
    });
    let data = (0..COUNT).flat_map(|n| (n as f32).to_le_bytes()).collect();
    (header.to_string(), data)
}

async fn post(fixture: &Fixture, headers: &[(&str, &str)], body: Vec<u8>) -> Reply {
    let mut request = Request::post(INFER);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    fixture.call(request.body(Body::from(body)).unwrap()).await
}

#[tokio::test]
async fn a_compressed_request_is_answered_as_the_plain_one() {
    let fixture = large().await;
    let (header, data) = binary();
    let body = [header.as_bytes(), &data].concat();
    let length = header.len().to_string();
    let want = post(&fixture, &[("inference-header-content-length", &length)], body.clone()).await;
    assert_eq!(want.status, 200, "{:?}", want.body);
    assert_eq!((want.header("content-encoding"), want.header("vary")), (None, None));
    for coding in CODINGS {
        // The length is that of the JSON before it is compressed, in both directions.
        let headers = [
            ("inference-header-content-length", &*length),
            ("content-encoding", coding),
            ("accept-encoding", coding),
        ];
        let got = post(&fixture, &headers, small(coding, &body)).await;
        assert_eq!(got.status, 200, "{:?}", got.body);
        assert_eq!(got.header("content-encoding"), Some(coding));
        assert_eq!(got.header("vary"), Some("accept-encoding"));
        let name = "inference-header-content-length";
        assert_eq!(got.header(name), want.header(name));
        assert!(got.body.len() < want.body.len(), "{coding}: {} bytes", got.body.len());
        assert_eq!(plain(coding, &got.body), want.body, "{coding}");
    }
}

#[tokio::test]
async fn a_small_answer_and_one_that_does_not_shrink_are_sent_as_they_are() {
    let fixture = Fixture::adding(1.0, "").await;
    let accept = [("accept-encoding", "gzip")];
    let small = post(&fixture, &accept, four([1.0; 4]).into_bytes()).await;
    assert_eq!((small.status.as_u16(), small.header("content-encoding")), (200, None));

    let fixture = Fixture::identity(Datatype::Uint8, &[4096]).await;
    // Bytes that look random.
    let mut state = 1_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(4096)
    .collect();
    let headers = [("inference-header-content-length", "0"), ("accept-encoding", "deflate")];
    let same = post(&fixture, &headers, noise.clone()).await;
    assert_eq!(same.status, 200, "{:?}", same.body);
    assert!(same.body.ends_with(&noise) && same.header("content-encoding").is_none());
}

#[tokio::test]
async fn a_bomb_is_too_large_and_a_wrong_body_is_a_mistake() {
    let fixture = large().await;
    for coding in CODINGS {
        let headers = [("content-encoding", coding)];
        let bomb = post(&fixture, &headers, small(coding, &vec![b' '; 64 << 20])).await;
        assert_eq!((bomb.status.as_u16(), &bomb.json()["code"]), (413, &json!("too-large")));
        let wrong = post(&fixture, &headers, four([1.0; 4]).into_bytes()).await;
        assert_eq!(
            (wrong.status.as_u16(), &wrong.json()["code"]),
            (400, &json!("bad-compression"))
        );
        assert!(wrong.text().contains(coding), "{}", wrong.text());
    }
}

#[tokio::test]
async fn a_coding_that_is_not_known_is_refused_with_those_that_are() {
    let fixture = Fixture::adding(1.0, "").await;
    for path in [INFER, "/v2/repository/index"] {
        let request = Request::post(path).header("content-encoding", "br").body(Body::from("x"));
        let reply = fixture.call(request.unwrap()).await;
        assert_eq!(reply.status, 415, "{path}");
        assert_eq!(reply.header("accept-encoding"), Some("zstd, gzip, deflate"), "{path}");
    }
}

#[tokio::test]
async fn what_the_server_says_of_itself_is_compressed_too() {
    let models: Vec<_> = (0..40).map(|n| format!("model-{n}")).collect();
    let model = onnx::add_scalar(1.0, &[4]);
    let packages: Vec<_> = models.iter().map(|name| (&**name, &*model, "")).collect();
    let fixture = Fixture::new(&packages).await;
    let want = fixture.get("/v2/models/stats").await;
    let request = Request::get("/v2/models/stats").header("accept-encoding", "gzip");
    let got = fixture.call(request.body(Body::empty()).unwrap()).await;
    assert_eq!(got.header("content-encoding"), Some("gzip"));
    assert_eq!(plain("gzip", &got.body).len(), want.body.len());
    let index = Request::post("/v2/repository/index").header("content-encoding", "zstd");
    let body = small("zstd", br#"{"ready": true}"#);
    let index = fixture.call(index.body(Body::from(body)).unwrap()).await;
    assert_eq!(index.json().as_array().map(Vec::len), Some(40));
}
