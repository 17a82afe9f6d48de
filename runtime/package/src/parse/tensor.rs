//! `[[input]]` and `[[output]]`.

use std::collections::BTreeSet;

use toml::Spanned;
use toml::de::DeValue;

use crate::reader::{At, Reader, to_u64};
use crate::spelling;
use crate::tensor::{Datatype, Dim, MAX_RANK, TensorSpec};

/// Longest name of a tensor, in bytes. Exporters write paths of modules as names,
/// so it is longer than a name of ours.
const MAX_TENSOR_NAME_LEN: usize = 256;

/// Names by which other tools know the datatypes.
const ALIASES: [(&str, Datatype); 13] = [
    ("float32", Datatype::Fp32),
    ("float", Datatype::Fp32),
    ("f32", Datatype::Fp32),
    ("float64", Datatype::Fp64),
    ("double", Datatype::Fp64),
    ("float16", Datatype::Fp16),
    ("half", Datatype::Fp16),
    ("bfloat16", Datatype::Bf16),
    ("int", Datatype::Int64),
    ("long", Datatype::Int64),
    ("boolean", Datatype::Bool),
    ("string", Datatype::Bytes),
    ("byte", Datatype::Uint8),
];

/// All specifications that are right; what is wrong is reported.
pub(super) fn specs(root: &Reader<'_>, key: &str, what: &'static str) -> Vec<TensorSpec> {
    let mut names = BTreeSet::new();
    let mut specs = Vec::new();
    for reader in root.tables(key, what, &["name", "datatype", "shape"]) {
        reader.require("name", "name = \"x\"");
        reader.require("datatype", "datatype = \"FP32\"");
        reader.require("shape", "shape = [-1, 3]");
        let name = name(&reader);
        if let Some(At { at, value }) = name
            && !names.insert(value)
        {
            let message = format!("{key} `{value}` is there twice: give one another name");
            reader.mistake(at, message);
        }
        let datatype = datatype(&reader);
        let shape = shape(&reader);
        if let (Some(name), Some(datatype), Some(shape)) = (name, datatype, shape) {
            specs.push(TensorSpec { name: name.value.to_owned(), datatype, shape });
        }
    }
    specs
}

fn name<'a>(reader: &Reader<'a>) -> Option<At<&'a str>> {
    let text = reader.text("name")?;
    let good = !text.value.is_empty()
        && text.value.len() <= MAX_TENSOR_NAME_LEN
        && !text.value.contains(char::is_control);
    if !good {
        let message = format!(
            "`{}` is not a tensor name: use 1 to {MAX_TENSOR_NAME_LEN} bytes without control \
             characters",
            text.value
        );
        reader.mistake(text.at, message);
    }
    good.then_some(text)
}

fn datatype(reader: &Reader<'_>) -> Option<Datatype> {
    let text = reader.text("datatype")?;
    let found = text.value.parse().ok();
    if found.is_none() {
        let alias = ALIASES.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(text.value));
        let near = alias.map(|(_, datatype)| datatype.as_str());
        let near =
            near.or_else(|| spelling::nearest(text.value, Datatype::ALL.map(Datatype::as_str)));
        let fix = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("use one of {}", Datatype::ALL.map(Datatype::as_str).join(", ")),
        };
        reader.mistake(text.at, format!("unknown datatype `{}`: {fix}", text.value));
    }
    found
}

fn shape(reader: &Reader<'_>) -> Option<Vec<Dim>> {
    let items = reader.array("shape", "an array of sizes, for instance [-1, 3, 224, 224]")?;
    if items.len() > MAX_RANK {
        let message =
            format!("`shape` has {} dimensions: a tensor has at most {MAX_RANK}", items.len());
        reader.mistake(reader.at_of("shape"), message);
        return None;
    }
    // Every dimension is judged before a wrong one makes the shape none.
    let dims: Vec<_> = items.iter().map(|item| dim(reader, item)).collect();
    dims.into_iter().collect()
}

fn dim(reader: &Reader<'_>, item: &Spanned<DeValue<'_>>) -> Option<Dim> {
    let integer = item.get_ref().as_integer();
    if integer.is_some_and(|integer| integer.as_str() == "-1") {
        return Some(Dim::Any);
    }
    // Above i64 the protocol could not say the size.
    let size = integer.and_then(to_u64).filter(|&size| size > 0 && i64::try_from(size).is_ok());
    if size.is_none() {
        let found = match integer {
            Some(integer) => integer.to_string(),
            None => format!("a {}", item.get_ref().type_str()),
        };
        let message = format!("a dimension can't be {found}: write its size, or -1 for any size");
        reader.mistake(item.span().start, message);
    }
    size.map(Dim::Fixed)
}
