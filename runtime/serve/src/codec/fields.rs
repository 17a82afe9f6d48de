//! The small parts of a request, each bounded as it is read.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};

use wick_nn::MAX_RANK;

use super::MAX_TENSORS;
use super::parameters::Parameters;

/// An output that the client wants.
#[derive(Deserialize)]
pub(crate) struct Output {
    pub name: String,
    #[serde(default)]
    pub parameters: Parameters,
}

/// `outputs`: null, or not too many.
#[derive(Default)]
pub(super) struct Outputs(pub Vec<Output>);

/// `shape`: sizes, not too many.
pub(super) struct Shape(pub Vec<u64>);

/// A dimension: zero or more.
struct Size(u64);

struct OutputsVisitor;
struct ShapeVisitor;
struct SizeVisitor;

// === impl Outputs, Shape, Size ===

impl<'de> Deserialize<'de> for Outputs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OutputsVisitor)
    }
}

impl<'de> Visitor<'de> for OutputsVisitor {
    type Value = Outputs;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`outputs`: an array of objects with `name`")
    }

    fn visit_unit<E>(self) -> Result<Outputs, E> {
        Ok(Outputs::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Outputs, A::Error> {
        bounded(seq, MAX_TENSORS, "outputs").map(Outputs)
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ShapeVisitor)
    }
}

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`shape`: an array of sizes")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Shape, A::Error> {
        let sizes = bounded::<Size, A>(seq, MAX_RANK, "dimensions")?;
        Ok(Shape(sizes.into_iter().map(|size| size.0).collect()))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SizeVisitor)
    }
}

impl Visitor<'_> for SizeVisitor {
    type Value = Size;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size in `shape`, which is a whole number >= 0")
    }

    fn visit_u64<E>(self, value: u64) -> Result<Size, E> {
        Ok(Size(value))
    }
}

/// Read an array of at most `max` values.
fn bounded<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(
    mut seq: A,
    max: usize,
    what: &str,
) -> Result<Vec<T>, A::Error> {
    let mut all = Vec::new();
    while let Some(value) = seq.next_element()? {
        if all.len() == max {
            return Err(de::Error::custom(format!("more than {max} {what}")));
        }
        all.push(value);
    }
    Ok(all)
}
