//! What kind of file it is, by its first bytes, and what to do with a kind that is not taken.
//! Pure: no file is opened here.
//!
//! The name only decides where the content can't: between kinds that share a container, and for
//! those that have no mark of their own.

/// First bytes that are enough to tell every kind apart. Zip archives of PyTorch and Keras name
/// their first entries within it; pickles name their classes.
pub const HEAD: usize = 4096;

/// Longest header of a safetensors file that is plausible, in bytes; the format's own limit.
const MAX_SAFETENSORS_HEADER: u64 = 100_000_000;

/// A kind of file that holds a model, or holds something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Looks like ONNX; only reading it tells.
    Onnx,
    PyTorch,
    TorchScript,
    Safetensors,
    SavedModel,
    FrozenGraph,
    KerasZip,
    Hdf5,
    TfLite,
    Gguf,
    TensorRt,
    OpenVino,
    ScikitLearn,
    Pickle,
    XgBoost,
    LightGbm,
    CatBoost,
    CoreMl,
    CoreMlPackage,
    Paddle,
    /// A package of wick itself, as a folder or an image layout.
    Wick,
    Numpy,
    Zip,
    Gzip,
    Zstd,
    Tar,
    /// Git LFS keeps the content elsewhere.
    LfsPointer,
    Html,
}

// === impl Format ===

impl Format {
    /// What it is, with an article.
    pub const fn what(self) -> &'static str {
        match self {
            Self::Onnx => "an ONNX model",
            Self::PyTorch => "a PyTorch checkpoint",
            Self::TorchScript => "a TorchScript archive",
            Self::Safetensors => "weights in safetensors",
            Self::SavedModel => "a TensorFlow SavedModel",
            Self::FrozenGraph => "a frozen TensorFlow graph",
            Self::KerasZip => "a Keras model",
            Self::Hdf5 => "a Keras model in HDF5",
            Self::TfLite => "a TensorFlow Lite model",
            Self::Gguf => "a GGUF language model",
            Self::TensorRt => "a TensorRT engine",
            Self::OpenVino => "an OpenVINO IR model",
            Self::ScikitLearn => "a pickled scikit-learn model",
            Self::Pickle => "a Python pickle",
            Self::XgBoost => "an XGBoost model",
            Self::LightGbm => "a LightGBM model",
            Self::CatBoost => "a CatBoost model",
            Self::CoreMl => "a Core ML model",
            Self::CoreMlPackage => "a Core ML package",
            Self::Paddle => "a PaddlePaddle model",
            Self::Wick => "a package of wick already",
            Self::Numpy => "a NumPy array",
            Self::Zip => "a zip archive",
            Self::Gzip => "compressed with gzip",
            Self::Zstd => "compressed with zstd",
            Self::Tar => "a tar archive",
            Self::LfsPointer => "a pointer of Git LFS, not the file itself",
            Self::Html => "a web page",
        }
    }

    /// How to get an ONNX file from it.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Onnx => "export it again, and check it with `onnx.checker.check_model`",
            Self::PyTorch => {
                "weights alone don't say what is computed: load them in Python and export with \
                 `torch.onnx.export(model, args, \"model.onnx\", dynamo=True)`"
            }
            Self::TorchScript => {
                "load it with `torch.jit.load` and export with `torch.onnx.export(model, args, \
                 \"model.onnx\")`"
            }
            Self::Safetensors => {
                "weights alone don't say what is computed: `optimum-cli export onnx --model DIR \
                 OUT` converts a Hugging Face model; for others use torch.onnx.export"
            }
            Self::SavedModel => {
                "convert it: `python -m tf2onnx.convert --saved-model DIR --output model.onnx`"
            }
            Self::FrozenGraph => {
                "convert it: `python -m tf2onnx.convert --graphdef FILE --inputs X:0 --outputs \
                 Y:0 --output model.onnx`"
            }
            Self::KerasZip | Self::Hdf5 => {
                "load it with `keras.models.load_model` and export with `model.export(\
                 \"model.onnx\", format=\"onnx\")`, or with `tf2onnx.convert.from_keras`"
            }
            Self::TfLite => {
                "convert it: `python -m tf2onnx.convert --tflite FILE --output model.onnx`"
            }
            Self::Gguf => {
                "there is no way back to ONNX: take the original weights and convert them with \
                 `optimum-cli export onnx`, or serve it with llama.cpp"
            }
            Self::TensorRt => {
                "an engine runs only on the GPU that it was built for, and can't be converted: \
                 take the ONNX file that it was built from"
            }
            Self::OpenVino => {
                "IR can't be converted back: take the model that it was made from, and export \
                 that to ONNX"
            }
            Self::ScikitLearn => {
                "unpickling runs code, so it is not opened here: convert it where you trained it \
                 with `skl2onnx.to_onnx(model, X[:1], options={\"zipmap\": False})`"
            }
            Self::Pickle => {
                "unpickling runs code, so it is not opened here: load it where it was made, and \
                 export with skl2onnx, torch.onnx or onnxmltools, by the library that it is of"
            }
            Self::XgBoost => "convert it with `onnxmltools.convert_xgboost(model, ...)`",
            Self::LightGbm => "convert it with `onnxmltools.convert_lightgbm(model, ...)`",
            Self::CatBoost => "export it with `model.save_model(\"model.onnx\", format=\"onnx\")`",
            Self::CoreMl | Self::CoreMlPackage => {
                "convert it with `onnxmltools.convert_coreml` (neural networks of Core ML 1 to 3 \
                 only), or export the original model to ONNX"
            }
            Self::Paddle => {
                "convert it: `paddle2onnx --model_dir DIR --model_filename FILE --save_file \
                 model.onnx`"
            }
            Self::Wick => "run it as it is with `wick run`",
            Self::Numpy => "it holds numbers, and no model",
            Self::Zip | Self::Tar | Self::Gzip | Self::Zstd => {
                "unpack it, and import the ONNX file or folder that is in it"
            }
            Self::LfsPointer => "fetch the content with `git lfs pull`",
            Self::Html => "the address is that of a page: take the one of the file itself",
        }
    }
}

/// Tell a file by its name and its first bytes, [`HEAD`] of them or all that it has.
pub fn recognise(name: &str, head: &[u8]) -> Option<Format> {
    let name = name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
    let by_content = magic(head)
        .or_else(|| archive(&name, head))
        .or_else(|| pickle(&name, head))
        .or_else(|| text(&name, head));
    by_content.or_else(|| protobuf(&name, head)).or_else(|| by_name(&name))
}

/// Kinds with a mark of their own.
fn magic(head: &[u8]) -> Option<Format> {
    let at = |offset: usize, mark: &[u8]| head.get(offset..).is_some_and(|h| h.starts_with(mark));
    let marks: [(bool, Format); 12] = [
        (at(0, b"GGUF"), Format::Gguf),
        (at(4, b"TFL3"), Format::TfLite),
        (at(0, b"\x89HDF\r\n\x1a\n"), Format::Hdf5),
        (at(0, b"ftrt") || at(0, b"ptrt"), Format::TensorRt),
        (at(0, b"\x93NUMPY"), Format::Numpy),
        (at(0, b"CBM1"), Format::CatBoost),
        (at(0, b"binf") || at(0, b"{L\x00\x00\x00\x00\x00\x00\x00\x07learner"), Format::XgBoost),
        (at(0, b"{L\x00\x00\x00\x07learner"), Format::XgBoost),
        (at(0, b"\x1f\x8b"), Format::Gzip),
        (at(0, b"\x28\xb5\x2f\xfd"), Format::Zstd),
        (at(257, b"ustar"), Format::Tar),
        (at(0, b"version https://git-lfs.github.com/spec/"), Format::LfsPointer),
    ];
    let marked = marks.into_iter().find_map(|(is, format)| is.then_some(format));
    marked.or_else(|| safetensors(head))
}

/// Eight bytes of length, then that much JSON.
fn safetensors(head: &[u8]) -> Option<Format> {
    let (len, json) = head.split_first_chunk::<8>()?;
    let len = u64::from_le_bytes(*len);
    let plausible = (2..=MAX_SAFETENSORS_HEADER).contains(&len) && json.starts_with(b"{");
    let next = json.get(1..)?.iter().find(|byte| !byte.is_ascii_whitespace());
    (plausible && next.is_some_and(|byte| matches!(byte, b'"' | b'}')))
        .then_some(Format::Safetensors)
}

/// Zip archives, by the names of the entries at their beginning.
fn archive(name: &str, head: &[u8]) -> Option<Format> {
    if !head.starts_with(b"PK\x03\x04") {
        return None;
    }
    let has = |part: &[u8]| contains(head, part);
    Some(if has(b"/code/") || has(b"constants.pkl") {
        Format::TorchScript
    } else if has(b"data.pkl") || has(b"/byteorder") || has(b".format_version") {
        Format::PyTorch
    } else if has(b"model.weights.h5") || has(b"metadata.json") || name.ends_with(".keras") {
        Format::KerasZip
    } else if name.ends_with(".skops") || has(b"__module__") {
        Format::ScikitLearn
    } else if has(b".npy") {
        Format::Numpy
    } else {
        Format::Zip
    })
}

/// Pickles of protocol 2 and later, and PyTorch's before it had archives.
fn pickle(name: &str, head: &[u8]) -> Option<Format> {
    let [0x80, protocol @ 2..=5, ..] = head else { return None };
    // The number 0x1950a86a20f9469cfc6c, which PyTorch writes first.
    let torch = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
    let torch = head.get(2..).is_some_and(|rest| rest.starts_with(torch));
    let torch = torch || contains(head, b"torch._utils") || (*protocol == 2 && is_torch(name));
    Some(if torch {
        Format::PyTorch
    } else if contains(head, b"sklearn.") {
        Format::ScikitLearn
    } else if contains(head, b"xgboost.") {
        Format::XgBoost
    } else if contains(head, b"lightgbm.") {
        Format::LightGbm
    } else {
        Format::Pickle
    })
}

fn is_torch(name: &str) -> bool {
    [".pt", ".pth", ".ckpt"].iter().any(|end| name.ends_with(end)) || name == "pytorch_model.bin"
}

/// Kinds that are text.
fn text(name: &str, head: &[u8]) -> Option<Format> {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    let lower = head.iter().take(512).map(u8::to_ascii_lowercase).collect::<Vec<_>>();
    let starts = |mark: &[u8]| lower.starts_with(mark);
    if starts(b"<!doctype html") || starts(b"<html") {
        return Some(Format::Html);
    }
    if starts(b"<?xml") || starts(b"<net") {
        return contains(head, b"<net ").then_some(Format::OpenVino);
    }
    if starts(b"tree\n") || starts(b"tree\r\n") {
        return contains(head, b"num_class").then_some(Format::LightGbm);
    }
    if starts(b"{") {
        let has = |key: &[u8]| contains(head, key);
        if has(b"\"learner\"") || (has(b"\"gbtree\"") && name.ends_with(".json")) {
            return Some(Format::XgBoost);
        }
        if has(b"\"tree_info\"") || (has(b"\"num_tree_per_iteration\"") && has(b"\"name\"")) {
            return Some(Format::LightGbm);
        }
        if has(b"\"oblivious_trees\"") || has(b"\"features_info\"") {
            return Some(Format::CatBoost);
        }
    }
    None
}

/// Messages that differ only in what their first fields mean.
fn protobuf(name: &str, head: &[u8]) -> Option<Format> {
    let known = by_name(name);
    match head {
        // `ir_version`, or a schema's or specification's version, then a text or a message.
        [0x08, 1..=30, 0x12 | 0x1a | 0x22 | 0x2a | 0x32 | 0x3a | 0x42, ..] => {
            let other =
                [Format::SavedModel, Format::CoreMl].into_iter().find(|o| known == Some(*o));
            Some(other.unwrap_or(Format::Onnx))
        }
        [0x0a, ..] => known.filter(|known| matches!(known, Format::FrozenGraph | Format::Paddle)),
        _ => None,
    }
}

/// By the name alone.
fn by_name(name: &str) -> Option<Format> {
    let ends: [(&str, Format); 21] = [
        ("saved_model.pb", Format::SavedModel),
        (".pb", Format::FrozenGraph),
        (".mlmodel", Format::CoreMl),
        (".mlpackage", Format::CoreMlPackage),
        (".pdmodel", Format::Paddle),
        (".pdiparams", Format::Paddle),
        (".onnx", Format::Onnx),
        (".keras", Format::KerasZip),
        (".h5", Format::Hdf5),
        (".tflite", Format::TfLite),
        (".gguf", Format::Gguf),
        (".safetensors", Format::Safetensors),
        (".pt", Format::PyTorch),
        (".pth", Format::PyTorch),
        (".joblib", Format::ScikitLearn),
        (".pkl", Format::Pickle),
        (".plan", Format::TensorRt),
        (".engine", Format::TensorRt),
        (".cbm", Format::CatBoost),
        (".ubj", Format::XgBoost),
        ("wick.toml", Format::Wick),
    ];
    ends.into_iter().find_map(|(end, format)| name.ends_with(end).then_some(format))
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests;
