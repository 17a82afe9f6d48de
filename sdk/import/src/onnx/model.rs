//! What an ONNX file says of itself: inputs, outputs, and which weights lie in other files.
//! Weights are passed over, never read.
//!
//! Field numbers are those of onnx.proto. `Part` remembers where tensors with outside data sit,
//! and inside which messages, so that they can be moved into the file (`inline`).

use std::collections::BTreeSet;
use std::io::{Read, Seek};
use std::ops::Range;

use prost::Message;
use wick_package::{NameError, RelPath};

use super::types::{self, Declared, TypeError};
use super::walk::{Field, Value, WalkError, Walker};

/// Longest text of a small field: names, declarations of inputs, places of outside data.
const MAX_SMALL: u64 = 1 << 20;

/// How deep messages may be nested: a graph in a branch of a graph, three messages a level.
/// prost's own limit, so whatever the runtime can read is read here.
const MAX_DEPTH: usize = 100;

/// Most tensors whose data is in other files.
const MAX_EXTERNALS: usize = 1_000_000;

/// Why a file is no model that can be imported.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error("it is no ONNX file")]
    Walk(#[from] WalkError),
    #[error("it holds no ONNX graph")]
    NoGraph,
    #[error("its graph has no outputs")]
    NoOutputs,
    #[error("its messages are nested more than {MAX_DEPTH} deep")]
    Deep,
    #[error(transparent)]
    Type(#[from] TypeError),
    #[error("the weights of `{tensor}` are said to be in another file, and this is wrong: {why}")]
    External { tensor: String, why: String },
    #[error("the weights of `{tensor}` are in a file that lies outside of the model's folder")]
    Outside { tensor: String, source: NameError },
    #[error("more than {MAX_EXTERNALS} of its tensors are in other files")]
    Scattered,
}

/// An ONNX file without its weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    pub inputs: Vec<Declared>,
    pub outputs: Vec<Declared>,
    /// Which program wrote it, for people.
    pub producer: Option<String>,
    /// Size of the file in bytes.
    pub len: u64,
    /// Messages that hold tensors whose data is elsewhere.
    pub(super) parts: Vec<Part>,
}

/// A field of a message that has to change when outside data moves in.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Part {
    /// The field with its tag.
    pub(super) whole: Range<u64>,
    pub(super) number: u64,
    /// What it holds.
    pub(super) body: Range<u64>,
    pub(super) inner: Inner,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Inner {
    Message(Vec<Part>),
    Tensor(External),
}

/// A tensor whose data is in another file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct External {
    pub(super) name: String,
    /// Relative to the model's folder.
    pub(super) location: RelPath,
    pub(super) offset: u64,
    /// Known from the entry or from datatype and shape.
    pub(super) length: Option<u64>,
    /// Fields of the tensor that stay.
    pub(super) kept: Vec<Range<u64>>,
}

/// What kind of message it is, which decides where tensors may be in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Model,
    Graph,
    Node,
    Function,
    Attribute,
    Sparse,
    Tensor,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

/// What is collected on the way.
struct Scan<R> {
    walker: Walker<R>,
    inputs: Vec<Vec<u8>>,
    outputs: Vec<Vec<u8>>,
    weights: BTreeSet<String>,
    producer: Option<String>,
    has_graph: bool,
    externals: usize,
}

// === impl Model ===

impl Model {
    /// Look at a file.
    ///
    /// # Errors
    /// It is no ONNX file, or has inputs or outputs that can't be served.
    pub fn read(file: impl Read + Seek) -> Result<Self, ModelError> {
        let mut scan = Scan::new(file)?;
        let (parts, len) = scan.all()?;
        if !scan.has_graph {
            return Err(ModelError::NoGraph);
        }
        if scan.outputs.is_empty() {
            return Err(ModelError::NoOutputs);
        }
        let declared = |all: &[Vec<u8>]| {
            all.iter().map(|bytes| Declared::parse(bytes)).collect::<Result<Vec<_>, _>>()
        };
        // Before IR version 4, weights had to be inputs as well.
        let mut inputs = declared(&scan.inputs)?;
        inputs.retain(|input| !scan.weights.contains(&input.name));
        let outputs = declared(&scan.outputs)?;
        Ok(Self { inputs, outputs, producer: scan.producer, len, parts })
    }

    /// Files beside the model that hold weights, each once, in order.
    pub fn external_files(&self) -> BTreeSet<RelPath> {
        files_of(&self.parts)
    }
}

/// Files that hold weights of an ONNX file, relative to its folder, each once, in order. What the
/// model takes and gives does not matter.
///
/// # Errors
/// It is no ONNX file, or names a file outside of its folder.
pub fn external_files(file: impl Read + Seek) -> Result<BTreeSet<RelPath>, ModelError> {
    let (parts, _) = Scan::new(file)?.all()?;
    Ok(files_of(&parts))
}

fn files_of(parts: &[Part]) -> BTreeSet<RelPath> {
    let mut files = BTreeSet::new();
    let mut rest: Vec<&Part> = parts.iter().collect();
    while let Some(part) = rest.pop() {
        match &part.inner {
            Inner::Message(parts) => rest.extend(parts),
            Inner::Tensor(external) => _ = files.insert(external.location.clone()),
        }
    }
    files
}

// === impl Kind ===

impl Kind {
    /// What a field of such a message holds, if tensors may be in it.
    fn of_field(self, number: u64) -> Option<Self> {
        Some(match (self, number) {
            (Self::Model, 7) | (Self::Attribute, 6 | 11) => Self::Graph,
            (Self::Model, 25) => Self::Function,
            (Self::Graph, 1) | (Self::Function, 7) => Self::Node,
            (Self::Node, 5) | (Self::Function, 11) => Self::Attribute,
            (Self::Graph, 5) | (Self::Attribute, 5 | 10) | (Self::Sparse, 1 | 2) => Self::Tensor,
            (Self::Graph, 15) | (Self::Attribute, 22 | 23) => Self::Sparse,
            _ => return None,
        })
    }
}

// === impl Scan ===

impl<R: Read + Seek> Scan<R> {
    fn new(file: R) -> Result<Self, ModelError> {
        Ok(Self {
            walker: Walker::new(file)?,
            inputs: Vec::new(),
            outputs: Vec::new(),
            weights: BTreeSet::new(),
            producer: None,
            has_graph: false,
            externals: 0,
        })
    }

    /// Look at the whole file: its parts that hold outside data, and its size.
    fn all(&mut self) -> Result<(Vec<Part>, u64), ModelError> {
        let whole = self.walker.message();
        let len = whole.end;
        Ok((self.message(Kind::Model, whole, 0)?, len))
    }

    /// Look at a message; the parts of it that hold outside data.
    fn message(
        &mut self,
        kind: Kind,
        mut message: Range<u64>,
        depth: usize,
    ) -> Result<Vec<Part>, ModelError> {
        if depth > MAX_DEPTH {
            return Err(ModelError::Deep);
        }
        let mut parts = Vec::new();
        while let Some(field) = self.walker.next(&mut message)? {
            let Field { number, value: Value::Bytes(body), whole } = field else { continue };
            // Graphs of branches declare outputs too; only those of the model count.
            if depth <= 1 {
                self.declare(kind, number, &body)?;
            }
            let inner = match kind.of_field(number) {
                None => continue,
                Some(Kind::Tensor) => {
                    let is_weight = kind == Kind::Graph && depth == 1;
                    self.tensor(body.clone(), is_weight)?.map(Inner::Tensor)
                }
                Some(inner) => {
                    self.has_graph |= inner == Kind::Graph;
                    let parts = self.message(inner, body.clone(), depth + 1)?;
                    (!parts.is_empty()).then_some(Inner::Message(parts))
                }
            };
            parts.extend(inner.map(|inner| Part { whole, number, body, inner }));
        }
        Ok(parts)
    }

    fn declare(&mut self, kind: Kind, number: u64, body: &Range<u64>) -> Result<(), ModelError> {
        match (kind, number) {
            (Kind::Graph, 11) => self.inputs.push(self.walker.read(body, MAX_SMALL)?),
            (Kind::Graph, 12) => self.outputs.push(self.walker.read(body, MAX_SMALL)?),
            (Kind::Model, 2) => {
                let bytes = self.walker.read(body, MAX_SMALL)?;
                self.producer = String::from_utf8(bytes).ok().filter(|name| !name.is_empty());
            }
            _ => {}
        }
        Ok(())
    }

    /// Look at a tensor; none if its data is in this file.
    fn tensor(
        &mut self,
        mut message: Range<u64>,
        is_weight: bool,
    ) -> Result<Option<External>, ModelError> {
        let (mut name, mut elsewhere, mut entries, mut kept) =
            (String::new(), false, Vec::new(), Vec::new());
        let (mut data_type, mut dims) = (0, Vec::new());
        while let Some(field) = self.walker.next(&mut message)? {
            match (field.number, field.value) {
                (1, Value::Number(size)) => dims.push(size),
                (1, Value::Bytes(packed)) => dims.extend(self.packed(packed)?),
                (2, Value::Number(number)) => data_type = number,
                (8, Value::Bytes(body)) => {
                    name = String::from_utf8_lossy(&self.walker.read(&body, MAX_SMALL)?).into();
                }
                (13, Value::Bytes(body)) => entries.push(self.walker.read(&body, MAX_SMALL)?),
                (14, Value::Number(location)) => elsewhere = location == 1,
                _ => {}
            }
            // Data in the file (9) gives way to the outside data.
            if !matches!(field.number, 9 | 13 | 14) {
                kept.push(field.whole);
            }
        }
        if is_weight {
            self.weights.insert(name.clone());
        }
        if !elsewhere {
            return Ok(None);
        }
        self.externals += 1;
        if self.externals > MAX_EXTERNALS {
            return Err(ModelError::Scattered);
        }
        place(name, &entries, expected(data_type, &dims), kept).map(Some)
    }

    fn packed(&mut self, body: Range<u64>) -> Result<Vec<u64>, ModelError> {
        let bytes = self.walker.read(&body, MAX_SMALL)?;
        let mut sizes = Vec::new();
        let (mut value, mut shift) = (0_u64, 0);
        for byte in bytes {
            value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            shift += 7;
            if byte & 0x80 == 0 {
                sizes.push(value);
                (value, shift) = (0, 0);
            }
        }
        Ok(sizes)
    }
}

/// Bytes of a tensor by its datatype and shape; none where they don't tell.
fn expected(data_type: u64, dims: &[u64]) -> Option<u64> {
    let elements = dims.iter().try_fold(1_u64, |product, size| product.checked_mul(*size))?;
    Some(elements.checked_mul(types::bits(data_type)?)?.div_ceil(8))
}

/// Read the entries that say where the data is.
fn place(
    name: String,
    entries: &[Vec<u8>],
    expected: Option<u64>,
    kept: Vec<Range<u64>>,
) -> Result<External, ModelError> {
    let wrong = |why: String| ModelError::External { tensor: name.clone(), why };
    let (mut location, mut offset, mut length) = (None, 0, None);
    for bytes in entries {
        let Entry { key, value } =
            Entry::decode(bytes.as_slice()).map_err(|error| wrong(error.to_string()))?;
        let number = || value.parse::<u64>().map_err(|_| wrong(format!("`{value}` is no {key}")));
        match key.as_str() {
            "location" => location = Some(value),
            "offset" => offset = number()?,
            "length" => length = Some(number()?),
            // A checksum is SHA-1 and optional; others are for tools.
            _ => {}
        }
    }
    let location = location.ok_or_else(|| wrong("no file is named".to_owned()))?;
    let location = location.strip_prefix("./").unwrap_or(&location).parse();
    let location =
        location.map_err(|source| ModelError::Outside { tensor: name.clone(), source })?;
    if let (Some(length), Some(expected)) = (length, expected)
        && length != expected
    {
        return Err(wrong(format!("{length} bytes, where its shape needs {expected}")));
    }
    Ok(External { name, location, offset, length: length.or(expected), kept })
}

#[cfg(test)]
mod tests;
