//! A JSON tensor's `data`, decoded into a typed buffer as it is read.
//!
//! The data may be flat or nested as the shape is; which of the two is read off the
//! depth of its first element. Depth and number of elements are bounded by the
//! shape, and the buffer by the text that is left, so that a small request cannot
//! ask for much memory or a deep stack.

use std::fmt;
use std::marker::PhantomData;

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::de::{self, DeserializeSeed, Deserializer, SeqAccess, Visitor};
use wick_nn::{Element, Tensor, TensorError, element_count};
use wick_package::Datatype;

use super::floats;

/// Reads one tensor's data.
struct DataSeed<'s> {
    datatype: Datatype,
    shape: &'s [u64],
    /// Bytes of JSON that the data is: what bounds the first allocation.
    text: usize,
}

/// Where elements go.
trait Sink {
    /// Shortest JSON text of an element with its comma, in bytes.
    const SHORTEST: usize;

    fn with_capacity(elements: usize) -> Self;
    fn finish(self, shape: &[u64]) -> Result<Tensor, TensorError>;

    fn put_bool(&mut self, _: bool) -> Put {
        Err(Misfit::Type)
    }
    fn put_u64(&mut self, _: u64) -> Put {
        Err(Misfit::Type)
    }
    fn put_i64(&mut self, _: i64) -> Put {
        Err(Misfit::Type)
    }
    fn put_f64(&mut self, _: f64) -> Put {
        Err(Misfit::Type)
    }
    fn put_str(&mut self, _: &str) -> Put {
        Err(Misfit::Type)
    }
}

type Put = Result<(), Misfit>;

/// Why an element is not one of the tensor.
enum Misfit {
    Type,
    Range,
}

/// Rust numbers that JSON numbers become.
trait Number: Element + Send + Sync {
    fn from_u64(value: u64) -> Result<Self, Misfit>;
    fn from_i64(value: i64) -> Result<Self, Misfit>;
    /// From text with a fraction or an exponent: no whole number, whatever its value.
    fn from_f64(value: f64) -> Result<Self, Misfit>;
}

struct Numbers<T>(Vec<T>);
struct Bools(Vec<u8>);
struct Strings(BytesMut);

/// What holds for all of the data.
struct Layout<'s> {
    datatype: Datatype,
    shape: &'s [u64],
    /// Elements still to come.
    left: u64,
    /// Arrays around each element, known from the first one on.
    leaf_depth: Option<usize>,
}

/// One value of the data: an element, or an array of them.
struct Walk<'w, 's, S> {
    sink: &'w mut S,
    layout: &'w mut Layout<'s>,
    /// Arrays around this value.
    depth: usize,
}

/// The tensor that `text` is.
///
/// # Errors
/// It is not valid JSON, or none of this datatype and shape; the text says why.
pub(super) fn read(
    text: &[u8],
    datatype: Datatype,
    shape: &[u64],
) -> Result<Tensor, serde_json::Error> {
    let quick = match datatype {
        Datatype::Fp32 => floats::read(text, shape, |value| f32::from_f64(value).ok())
            .map(|values| Tensor::from_vec(shape, values)),
        Datatype::Fp64 => floats::read(text, shape, |value| f64::from_f64(value).ok())
            .map(|values| Tensor::from_vec(shape, values)),
        _ => None,
    };
    match quick {
        Some(tensor) => tensor.map_err(de::Error::custom),
        None => {
            let seed = DataSeed { datatype, shape, text: text.len() };
            let mut json = serde_json::Deserializer::from_slice(text);
            let tensor = seed.deserialize(&mut json)?;
            json.end().map(|()| tensor)
        }
    }
}

// === impl DataSeed ===

impl<'de> DeserializeSeed<'de> for DataSeed<'_> {
    type Value = Tensor;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tensor, D::Error> {
        match self.datatype {
            Datatype::Bool => self.read(deserializer, PhantomData::<Bools>),
            Datatype::Uint8 => self.read(deserializer, PhantomData::<Numbers<u8>>),
            Datatype::Uint16 => self.read(deserializer, PhantomData::<Numbers<u16>>),
            Datatype::Uint32 => self.read(deserializer, PhantomData::<Numbers<u32>>),
            Datatype::Uint64 => self.read(deserializer, PhantomData::<Numbers<u64>>),
            Datatype::Int8 => self.read(deserializer, PhantomData::<Numbers<i8>>),
            Datatype::Int16 => self.read(deserializer, PhantomData::<Numbers<i16>>),
            Datatype::Int32 => self.read(deserializer, PhantomData::<Numbers<i32>>),
            Datatype::Int64 => self.read(deserializer, PhantomData::<Numbers<i64>>),
            Datatype::Fp32 => self.read(deserializer, PhantomData::<Numbers<f32>>),
            Datatype::Fp64 => self.read(deserializer, PhantomData::<Numbers<f64>>),
            Datatype::Bytes => self.read(deserializer, PhantomData::<Strings>),
            Datatype::Fp16 | Datatype::Bf16 => Err(de::Error::custom(format!(
                "{} has no JSON form: send it as binary data (`binary_data_size`)",
                self.datatype
            ))),
        }
    }
}

impl DataSeed<'_> {
    fn read<'de, D: Deserializer<'de>, S: Sink>(
        self,
        deserializer: D,
        _: PhantomData<S>,
    ) -> Result<Tensor, D::Error> {
        let count = element_count(self.datatype, self.shape).map_err(de::Error::custom)?;
        let fits = self.text / S::SHORTEST + 1;
        let capacity = usize::try_from(count).map_or(fits, |count| count.min(fits));
        let mut sink = S::with_capacity(capacity);
        let mut layout =
            Layout { datatype: self.datatype, shape: self.shape, left: count, leaf_depth: None };
        Walk { sink: &mut sink, layout: &mut layout, depth: 0 }.deserialize(deserializer)?;
        if layout.left > 0 {
            let (shape, got) = (self.shape, count - layout.left);
            return Err(de::Error::custom(format!(
                "`data` has {got} elements, and shape {shape:?} needs {count}"
            )));
        }
        sink.finish(self.shape).map_err(de::Error::custom)
    }
}

// === impl Walk ===

impl<S: Sink> Walk<'_, '_, S> {
    /// Count an element and check its place before it is stored.
    fn element<E: de::Error>(&mut self) -> Result<(), E> {
        let rank = self.layout.shape.len();
        let depth = self.depth;
        match self.layout.leaf_depth {
            Some(first) if first == depth => {}
            Some(_) => return Err(E::custom("`data` nests some elements deeper than others")),
            None if depth == 0 => return Err(E::custom("`data` must be an array")),
            None if depth == 1 || depth == rank => self.layout.leaf_depth = Some(depth),
            None => {
                return Err(E::custom(format!(
                    "`data` is nested {depth} deep: send it flat, or nested as its shape {:?}",
                    self.layout.shape
                )));
            }
        }
        match self.layout.left.checked_sub(1) {
            Some(left) => self.layout.left = left,
            None => {
                let shape = self.layout.shape;
                let text = format!("`data` has more elements than shape {shape:?} holds");
                return Err(E::custom(text));
            }
        }
        Ok(())
    }

    fn misfit<E: de::Error>(&self, why: Misfit, value: impl fmt::Display) -> E {
        let datatype = self.layout.datatype;
        match why {
            Misfit::Type => E::custom(format!("{value} is not a value of {datatype}")),
            Misfit::Range => E::custom(format!("{value} is out of range for {datatype}")),
        }
    }
}

impl<'de, S: Sink> DeserializeSeed<'de> for Walk<'_, '_, S> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, S: Sink> Visitor<'de> for Walk<'_, '_, S> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`data`: an array of {} values", self.layout.datatype)
    }

    fn visit_bool<E: de::Error>(mut self, value: bool) -> Result<(), E> {
        self.element()?;
        self.sink.put_bool(value).map_err(|why| self.misfit(why, value))
    }

    fn visit_u64<E: de::Error>(mut self, value: u64) -> Result<(), E> {
        self.element()?;
        self.sink.put_u64(value).map_err(|why| self.misfit(why, value))
    }

    fn visit_i64<E: de::Error>(mut self, value: i64) -> Result<(), E> {
        self.element()?;
        self.sink.put_i64(value).map_err(|why| self.misfit(why, value))
    }

    fn visit_f64<E: de::Error>(mut self, value: f64) -> Result<(), E> {
        self.element()?;
        self.sink.put_f64(value).map_err(|why| self.misfit(why, value))
    }

    fn visit_str<E: de::Error>(mut self, value: &str) -> Result<(), E> {
        self.element()?;
        self.sink.put_str(value).map_err(|why| self.misfit(why, "a string"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Walk { sink, layout, depth } = self;
        let shape = layout.shape;
        // The shape bounds the depth, and its rank is bounded: no deep stack.
        if depth >= shape.len().max(1) {
            let text = format!("`data` is nested deeper than its shape {shape:?}");
            return Err(de::Error::custom(text));
        }
        let mut children: u64 = 0;
        while seq
            .next_element_seed(Walk { sink: &mut *sink, layout: &mut *layout, depth: depth + 1 })?
            .is_some()
        {
            children += 1;
        }
        let nested = layout.leaf_depth.is_some_and(|leaf| leaf > 1);
        if nested && children != shape[depth] {
            let text = format!("`data` has an array of {children}, and its shape is {shape:?}");
            return Err(de::Error::custom(text));
        }
        Ok(())
    }
}

// === impl Sink ===

impl<T: Number> Sink for Numbers<T> {
    const SHORTEST: usize = 2;

    fn with_capacity(elements: usize) -> Self {
        Self(Vec::with_capacity(elements))
    }

    fn finish(self, shape: &[u64]) -> Result<Tensor, TensorError> {
        Tensor::from_vec(shape, self.0)
    }

    fn put_u64(&mut self, value: u64) -> Put {
        self.0.push(T::from_u64(value)?);
        Ok(())
    }

    fn put_i64(&mut self, value: i64) -> Put {
        self.0.push(T::from_i64(value)?);
        Ok(())
    }

    fn put_f64(&mut self, value: f64) -> Put {
        self.0.push(T::from_f64(value)?);
        Ok(())
    }
}

impl Sink for Bools {
    const SHORTEST: usize = 5;

    fn with_capacity(elements: usize) -> Self {
        Self(Vec::with_capacity(elements))
    }

    fn finish(self, shape: &[u64]) -> Result<Tensor, TensorError> {
        Tensor::new(Datatype::Bool, shape, Bytes::from(self.0))
    }

    fn put_bool(&mut self, value: bool) -> Put {
        self.0.push(u8::from(value));
        Ok(())
    }
}

impl Sink for Strings {
    const SHORTEST: usize = 3;

    fn with_capacity(elements: usize) -> Self {
        Self(BytesMut::with_capacity(elements.saturating_mul(4)))
    }

    fn finish(self, shape: &[u64]) -> Result<Tensor, TensorError> {
        Tensor::new(Datatype::Bytes, shape, self.0.freeze())
    }

    fn put_str(&mut self, value: &str) -> Put {
        let len = u32::try_from(value.len()).map_err(|_| Misfit::Range)?;
        self.0.put_u32_le(len);
        self.0.put_slice(value.as_bytes());
        Ok(())
    }
}

// === impl Number ===

macro_rules! integers {
    ($($type:ty),*) => {
        $(impl Number for $type {
            fn from_u64(value: u64) -> Result<Self, Misfit> {
                Self::try_from(value).map_err(|_| Misfit::Range)
            }

            fn from_i64(value: i64) -> Result<Self, Misfit> {
                Self::try_from(value).map_err(|_| Misfit::Range)
            }

            fn from_f64(_: f64) -> Result<Self, Misfit> {
                Err(Misfit::Type)
            }
        })*
    };
}

macro_rules! floats {
    ($($type:ty),*) => {
        $(impl Number for $type {
            fn from_u64(value: u64) -> Result<Self, Misfit> {
                Ok(value as Self)
            }

            fn from_i64(value: i64) -> Result<Self, Misfit> {
                Ok(value as Self)
            }

            fn from_f64(value: f64) -> Result<Self, Misfit> {
                let narrow = value as Self;
                if narrow.is_finite() { Ok(narrow) } else { Err(Misfit::Range) }
            }
        })*
    };
}

integers!(u8, u16, u32, u64, i8, i16, i32, i64);
floats!(f32, f64);
