//! Inputs from the command line: `name=VALUE`, files, pictures and JSON become the
//! tensors that a model's metadata asks for.
//!
//! ```text
//!  x=3.5  x=[1,2]  x=[[1,2],[3,4]]  text=hello     written out
//!  x=@numbers.json                                 JSON from a file
//!  image=@cat.jpg                                  a picture, decoded if the input has its shape
//!  bytes=@report.pdf  bytes=@-                     a file's bytes, or standard input
//! ```
//!
//! The name may be left out where the model has one input. Making a tensor is pure;
//! only [`Reader`] touches files.

mod fill;
mod picture;
mod shape;

use std::io::Read as _;
use std::path::Path;

use bytes::Bytes;
use serde_json::Value;
use wick_engine::InferRequest;
use wick_nn::Tensor;
use wick_package::{Datatype, TensorSpec};

use crate::failure::{Failure, Outcome};
use crate::tensor_json;
use crate::wire;

pub use fill::Fill;
pub use picture::Pictures;

/// Most bytes that are taken from one file or from standard input. Bodies of requests
/// are bounded by servers far below.
const MAX_FILE: u64 = 4 << 30;

/// What a request is made of.
#[derive(Debug, clap::Args)]
pub struct InputArgs {
    /// An input: NAME=VALUE, NAME=[1,2,…], NAME=@FILE, NAME=@PICTURE, NAME=@- for standard
    /// input. NAME= may be left out where the model has one input
    #[arg(short, long = "input", value_name = "[NAME=]VALUE", allow_hyphen_values = true)]
    pub input: Vec<String>,
    /// A whole request in the protocol's JSON, from a file or `-`
    #[arg(long, value_name = "REQUEST.json", conflicts_with = "input")]
    pub json: Option<String>,
    /// A parameter of the request
    #[arg(short, long = "param", value_name = "NAME=VALUE")]
    pub param: Vec<String>,
    #[command(flatten)]
    pub pictures: Pictures,
}

/// What follows the name in an input.
#[derive(Debug, PartialEq)]
enum Source {
    Text(String),
    File(String, Bytes),
}

/// Reads what inputs name, standard input once.
struct Reader {
    stdin_taken: bool,
}

// === impl InputArgs ===

impl InputArgs {
    /// Build the request for a model with these inputs; what is not given is filled.
    ///
    /// # Errors
    /// A file can't be read, or an input does not fit the model.
    pub fn request(&self, specs: &[TensorSpec], fill: Option<&mut Fill>) -> Outcome<InferRequest> {
        let mut reader = Reader { stdin_taken: false };
        let mut request = match &self.json {
            Some(path) => {
                let bytes = reader.read(path)?;
                wire::read_request(&bytes).map_err(|error| {
                    Failure::input(format_args!("{path} is not an inference request: {error}"))
                        .help("write {\"inputs\": [{\"name\", \"shape\", \"datatype\", \"data\"}]}")
                })?
            }
            None => InferRequest::default(),
        };
        for text in &self.input {
            let (spec, value) = name_and_value(text, specs)?;
            let tensor = tensor(spec, reader.source(value)?, &self.pictures)
                .map_err(|error| wrong_input(spec, &error))?;
            request.inputs.push((spec.name.clone(), tensor));
        }
        for text in &self.param {
            let (name, value) = text.split_once('=').ok_or_else(|| {
                Failure::usage(format_args!("`{text}` is not NAME=VALUE"))
                    .help("write --param threshold=0.5")
            })?;
            request.parameters.push((name.to_owned(), wire::parameter(value)));
        }
        if let Some(fill) = fill {
            for spec in specs {
                if !request.inputs.iter().any(|(name, _)| *name == spec.name) {
                    let tensor = fill.tensor(spec).map_err(|error| wrong_input(spec, &error))?;
                    request.inputs.push((spec.name.clone(), tensor));
                }
            }
        }
        check_complete(&request, specs)?;
        Ok(request)
    }
}

// === impl Reader ===

impl Reader {
    fn source(&mut self, value: &str) -> Outcome<Source> {
        match value.strip_prefix('@') {
            Some(path) => Ok(Source::File(path.to_owned(), self.read(path)?)),
            None => Ok(Source::Text(value.to_owned())),
        }
    }

    fn read(&mut self, path: &str) -> Outcome<Bytes> {
        let cannot =
            |error| Failure::from(anyhow::Error::new(error).context(format!("cannot read {path}")));
        let mut bytes = Vec::new();
        if path == "-" {
            if std::mem::replace(&mut self.stdin_taken, true) {
                return Err(Failure::usage("standard input can be only one of the inputs"));
            }
            std::io::stdin().lock().take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(cannot)?;
        } else {
            let file = std::fs::File::open(path).map_err(cannot)?;
            file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(cannot)?;
        }
        if bytes.len() as u64 > MAX_FILE {
            return Err(Failure::input(format_args!("{path} is larger than {MAX_FILE} bytes")));
        }
        Ok(bytes.into())
    }
}

fn name_and_value<'s, 't>(
    text: &'t str,
    specs: &'s [TensorSpec],
) -> Outcome<(&'s TensorSpec, &'t str)> {
    if let Some((name, value)) = text.split_once('=')
        && let Some(spec) = specs.iter().find(|spec| spec.name == name)
    {
        return Ok((spec, value));
    }
    // `@a=b.png` and `x=1` with an unknown x look alike; a name never starts with these.
    let unnamed = !text.contains('=') || text.starts_with(['@', '[']);
    match (unnamed, specs) {
        (true, [spec]) => Ok((spec, text)),
        (true, _) => Err(Failure::usage(format_args!("`{text}` does not say which input it is"))
            .help(format!("write NAME=VALUE; the model takes {}", describe(specs)))),
        (false, _) => {
            let name = text.split('=').next().unwrap_or(text);
            Err(Failure::usage(format_args!("the model has no input `{name}`"))
                .help(format!("it takes {}", describe(specs))))
        }
    }
}

fn tensor(spec: &TensorSpec, source: Source, pictures: &Pictures) -> Result<Tensor, String> {
    match source {
        Source::Text(text) => from_text(spec, &text),
        Source::File(path, bytes) => from_file(spec, &path, bytes, pictures),
    }
}

fn from_text(spec: &TensorSpec, text: &str) -> Result<Tensor, String> {
    if spec.datatype == Datatype::Bytes && !text.starts_with('[') {
        let shape = shape::resolve(&spec.shape, 1)?;
        return Tensor::from_strings(&shape, &[text]).map_err(|error| error.to_string());
    }
    match serde_json::from_str(text) {
        Ok(value) => from_json(spec, &value),
        // A text for a model that takes the bytes of a file.
        Err(_) if takes_file(spec) && !text.starts_with('[') => {
            raw(spec, Bytes::copy_from_slice(text.as_bytes()))
        }
        Err(error) => Err(format!("`{text}` is neither a number nor a list of them: {error}")),
    }
}

fn from_file(
    spec: &TensorSpec,
    path: &str,
    bytes: Bytes,
    pictures: &Pictures,
) -> Result<Tensor, String> {
    if spec.datatype == Datatype::Bytes {
        let shape = shape::resolve(&spec.shape, 1)?;
        return Tensor::from_strings(&shape, &[&bytes]).map_err(|error| error.to_string());
    }
    if takes_file(spec) {
        return raw(spec, bytes);
    }
    if picture::is_picture(&bytes)
        && let Some(layout) = picture::Layout::of(spec)
    {
        return picture::tensor(&bytes, spec.datatype, layout, pictures);
    }
    let extension = Path::new(path).extension().unwrap_or_default();
    if extension.eq_ignore_ascii_case("json") {
        let value: Value = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
        return from_json(spec, &value);
    }
    raw(spec, bytes)
}

fn from_json(spec: &TensorSpec, value: &Value) -> Result<Tensor, String> {
    let nested = tensor_json::flatten(value)?;
    let as_written = nested.shape.len() == spec.shape.len()
        && nested.shape.iter().zip(&spec.shape).all(|(&size, dim)| dim.accepts(size));
    let shape = if as_written {
        nested.shape
    } else {
        shape::resolve(&spec.shape, nested.values.len() as u64)?
    };
    tensor_json::tensor(spec.datatype, &shape, &nested.values)
}

/// Little-endian elements as they are.
fn raw(spec: &TensorSpec, bytes: Bytes) -> Result<Tensor, String> {
    let size = spec.datatype.size().unwrap_or(1) as u64;
    let len = bytes.len() as u64;
    if !len.is_multiple_of(size) {
        return Err(format!("{len} bytes are not a whole number of {} elements", spec.datatype));
    }
    let shape = shape::resolve(&spec.shape, len / size)?;
    Tensor::new(spec.datatype, &shape, bytes).map_err(|error| error.to_string())
}

/// Whether the input is a file's bytes: UINT8 of any length.
fn takes_file(spec: &TensorSpec) -> bool {
    spec.datatype == Datatype::Uint8
        && spec.shape.iter().filter(|dim| dim.as_i64() == -1).count() == 1
        && spec.shape.iter().all(|dim| matches!(dim.as_i64(), -1 | 1))
}

fn check_complete(request: &InferRequest, specs: &[TensorSpec]) -> Outcome {
    let given = |spec: &&TensorSpec| request.inputs.iter().any(|(name, _)| *name == spec.name);
    let missing: Vec<_> = specs.iter().filter(|spec| !given(spec)).cloned().collect();
    if missing.is_empty() {
        return Ok(());
    }
    let what = if missing.len() == 1 { "an input is" } else { "inputs are" };
    Err(Failure::usage(format_args!("{what} missing: {}", describe(&missing)))
        .help("give each with -i NAME=VALUE or -i NAME=@FILE"))
}

fn wrong_input(spec: &TensorSpec, error: &str) -> Failure {
    let text = format!("input `{}` ({} {}): {error}", spec.name, spec.datatype, spec.shape_text());
    Failure::input(text)
}

fn describe(specs: &[TensorSpec]) -> String {
    let one = |spec: &TensorSpec| format!("{} {} {}", spec.name, spec.datatype, spec.shape_text());
    match specs {
        [] => "no inputs".to_owned(),
        _ => specs.iter().map(one).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests;
