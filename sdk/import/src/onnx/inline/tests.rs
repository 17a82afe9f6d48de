use std::fs;
use std::io::Cursor;
use std::path::Path;

use prost::Message as _;
use wick_testing::onnx;

use super::*;

/// Write `model` and its weights into files and move the weights in.
fn inlined(folder: &Path, model: &[u8], weights: &[u8]) -> Vec<u8> {
    fs::write(folder.join("model.onnx"), model).unwrap();
    fs::write(folder.join("weights.bin"), weights).unwrap();
    let parsed = Model::read(Cursor::new(model)).unwrap();
    let location: RelPath = "weights.bin".parse().unwrap();
    let sizes = BTreeMap::from([(location.clone(), weights.len() as u64)]);
    let plan = Plan::new(&parsed, &sizes).unwrap();
    let mut file = File::open(folder.join("model.onnx")).unwrap();
    let outside = File::open(folder.join("weights.bin")).unwrap();
    let (mut written, mut advanced) = (Vec::new(), 0);
    plan.write(&mut file, &mut [(location, outside)].into(), &mut written, &mut |count| {
        advanced += count;
    })
    .unwrap();
    assert_eq!(plan.len, written.len() as u64);
    assert!(advanced <= plan.len);
    written
}

#[test]
fn the_weights_are_in_the_model_and_nothing_else_has_changed() {
    let folder = tempfile::tempdir().unwrap();
    let model = onnx::external_data("weights.bin");
    let weights: Vec<u8> = [1.0_f32, 2.0, 3.0, 4.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    let written = inlined(folder.path(), &model, &weights);
    let after = Model::read(Cursor::new(&written)).unwrap();
    assert!(after.external_files().is_empty());

    // The same as if the exporter had put them there.
    let before = Model::read(Cursor::new(&model)).unwrap();
    assert_eq!((after.inputs, after.outputs), (before.inputs, before.outputs));
    let raw = Raw::decode(written.as_slice()).unwrap();
    let weight = &raw.graph.unwrap().initializer[0];
    assert_eq!(weight.raw_data, weights);
    assert_eq!((weight.name.as_str(), weight.data_location), ("weights", 0));
    assert_eq!(weight.dims, [4]);
}

#[test]
fn a_model_without_outside_weights_stays_as_it_is() {
    let model = onnx::dense(16, 2);
    let parsed = Model::read(Cursor::new(&model)).unwrap();
    let plan = Plan::new(&parsed, &BTreeMap::new()).unwrap();
    assert_eq!(plan.segments, [Segment::Kept(0..model.len() as u64)]);
}

#[test]
fn a_missing_or_short_file_is_named() {
    let model = onnx::external_data("weights.bin");
    let parsed = Model::read(Cursor::new(&model)).unwrap();
    let missing = Plan::new(&parsed, &BTreeMap::new()).unwrap_err();
    assert!(missing.to_string().contains("`weights.bin`"), "{missing}");
    let sizes = BTreeMap::from([("weights.bin".parse().unwrap(), 15)]);
    let short = Plan::new(&parsed, &sizes).unwrap_err().to_string();
    assert!(short.contains("15 bytes") && short.contains("byte 16"), "{short}");
}

#[derive(Clone, PartialEq, prost::Message)]
struct Raw {
    #[prost(message, optional, tag = "7")]
    graph: Option<RawGraph>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RawGraph {
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<RawTensor>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RawTensor {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "vec", tag = "9")]
    raw_data: Vec<u8>,
    #[prost(int32, tag = "14")]
    data_location: i32,
}
