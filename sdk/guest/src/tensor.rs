//! Tensors: handles to bytes that the host keeps.

use std::fmt;
use std::ops::Deref;

use crate::{Datatype, Element, Error, Result, host};

/// An immutable tensor. Cloning it and passing it on copy nothing; reading copies the
/// part that is read into the handler's memory.
///
/// Data is row-major. Shapes are outermost dimension first; a scalar's is empty.
///
/// ```
/// use wick_guest::{Datatype, Tensor};
///
/// let tensor = Tensor::new(&[2, 3], [1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0])?;
/// assert_eq!((tensor.datatype(), tensor.shape()), (Datatype::Fp32, vec![2, 3]));
/// assert_eq!(tensor.to_vec::<f32>()?[5], 6.0);
/// // The second row alone, as bytes.
/// assert_eq!(tensor.read(12, 12).len(), 12);
/// # Ok::<(), wick_guest::Error>(())
/// ```
pub struct Tensor {
    pub(crate) inner: host::Tensor,
}

/// Elements of a tensor, read once: a slice that [`Tensor::view`] returns.
pub struct View<T>(ViewData<T>);

enum ViewData<T> {
    /// Bytes as the host wrote them.
    // Invariant: `bytemuck` casts them to a slice of `T`, as `View::of` has tried.
    Bytes(Vec<u8>),
    /// Copied, because the bytes did not lie where a `T` may.
    Values(Vec<T>),
}

// === impl Tensor ===

impl Tensor {
    /// A tensor of numbers or booleans.
    ///
    /// # Errors
    /// The number of elements does not fit the shape.
    ///
    /// ```
    /// use wick_guest::Tensor;
    ///
    /// let pixels = vec![0_u8; 12];
    /// assert!(Tensor::new(&[1, 2, 2, 3], &pixels).is_ok());
    /// assert!(Tensor::new(&[1, 2, 2, 4], &pixels).is_err());
    /// ```
    pub fn new<T: Element>(shape: &[u64], values: impl AsRef<[T]>) -> Result<Self> {
        Self::from_bytes(T::DATATYPE, shape, bytemuck::cast_slice(values.as_ref()))
    }

    /// [`Tensor::new`] for a vector whose element type is written out or inferred from
    /// its use.
    ///
    /// # Errors
    /// The number of elements does not fit the shape.
    ///
    /// ```
    /// use wick_guest::Tensor;
    ///
    /// let tensor = Tensor::from_vec::<i32>(&[4], (0..4).collect())?;
    /// assert_eq!(tensor.byte_size(), 16);
    /// # Ok::<(), wick_guest::Error>(())
    /// ```
    pub fn from_vec<T: Element>(shape: &[u64], values: Vec<T>) -> Result<Self> {
        Self::new(shape, values)
    }

    /// A BYTES tensor of strings, or of byte strings.
    ///
    /// # Errors
    /// The number of elements does not fit the shape, or one is over 4 GiB.
    ///
    /// ```
    /// use wick_guest::Tensor;
    ///
    /// let tensor = Tensor::from_strings(&[2], &["png", "image/png"])?;
    /// assert_eq!(tensor.to_strings()?, ["png", "image/png"]);
    /// # Ok::<(), wick_guest::Error>(())
    /// ```
    pub fn from_strings<S: AsRef<[u8]>>(shape: &[u64], values: &[S]) -> Result<Self> {
        let size = values.iter().map(|value| 4 + value.as_ref().len()).sum();
        let mut data = Vec::with_capacity(size);
        for value in values {
            let value = value.as_ref();
            let len = u32::try_from(value.len())?;
            data.extend_from_slice(&len.to_le_bytes());
            data.extend_from_slice(value);
        }
        Self::from_bytes(Datatype::Bytes, shape, &data)
    }

    /// A tensor of raw little-endian data. BOOL is one byte an element, 0 or 1; BYTES is
    /// a 32-bit length before each element.
    ///
    /// # Errors
    /// The data does not fit datatype and shape.
    pub fn from_bytes(datatype: Datatype, shape: &[u64], data: &[u8]) -> Result<Self> {
        Ok(Self { inner: host::Tensor::new(datatype, shape, data)? })
    }

    /// Type of the elements.
    pub fn datatype(&self) -> Datatype {
        self.inner.datatype()
    }

    /// Sizes of the dimensions, outermost first.
    pub fn shape(&self) -> Vec<u64> {
        self.inner.shape()
    }

    /// Number of elements.
    pub fn len(&self) -> u64 {
        self.shape().iter().product()
    }

    /// Whether some dimension is zero.
    pub fn is_empty(&self) -> bool {
        self.shape().contains(&0)
    }

    /// Number of bytes of the data.
    pub fn byte_size(&self) -> u64 {
        self.inner.byte_size()
    }

    /// Bytes from `offset` on, at most `len`; fewer at the end, none past it. For parts
    /// of tensors that are too large to be read whole.
    ///
    /// ```
    /// use wick_guest::Tensor;
    ///
    /// let tensor = Tensor::new(&[5], b"abcde")?;
    /// assert_eq!(tensor.read(1, 2), b"bc");
    /// assert_eq!(tensor.read(3, 100), b"de");
    /// # Ok::<(), wick_guest::Error>(())
    /// ```
    pub fn read(&self, offset: u64, len: u64) -> Vec<u8> {
        self.inner.read(offset, len)
    }

    /// All elements, owned.
    ///
    /// # Errors
    /// The datatype is another one. That is internal: the host has checked the
    /// request's inputs, so handler and package disagree.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        Ok(self.view()?.into_vec())
    }

    /// All elements as a slice, which saves the copy that [`Tensor::to_vec`] makes.
    ///
    /// # Errors
    /// The datatype is another one.
    ///
    /// ```
    /// use wick_guest::Tensor;
    ///
    /// let tensor = Tensor::new(&[4], [0.5_f32, 0.25, 0.125, 0.0])?;
    /// assert_eq!(tensor.view::<f32>()?.iter().sum::<f32>(), 0.875);
    /// # Ok::<(), wick_guest::Error>(())
    /// ```
    pub fn view<T: Element>(&self) -> Result<View<T>> {
        self.check(T::DATATYPE)?;
        View::of(self.read(0, self.byte_size()))
    }

    /// All elements of `len` elements from `start` on, both counted in elements;
    /// fewer at the end. For one row of a large tensor.
    ///
    /// # Errors
    /// The datatype is another one.
    ///
    /// ```
    /// use wick_guest::Tensor;
    ///
    /// let tensor = Tensor::new(&[2, 2], [1_i64, 2, 3, 4])?;
    /// assert_eq!(&tensor.view_range::<i64>(2, 2)?[..], [3, 4]);
    /// # Ok::<(), wick_guest::Error>(())
    /// ```
    pub fn view_range<T: Element>(&self, start: u64, len: u64) -> Result<View<T>> {
        self.check(T::DATATYPE)?;
        let size = size_of::<T>() as u64;
        View::of(self.read(start.saturating_mul(size), len.saturating_mul(size)))
    }

    /// All elements of a BYTES tensor as text.
    ///
    /// # Errors
    /// Not a BYTES tensor (internal), or an element is not UTF-8 (the caller's mistake).
    pub fn to_strings(&self) -> Result<Vec<String>> {
        let text = |bytes| {
            String::from_utf8(bytes).map_err(|error| {
                Error::bad_input(format_args!("a BYTES element is not UTF-8: {error}"))
            })
        };
        self.to_byte_strings()?.into_iter().map(text).collect()
    }

    /// All elements of a BYTES tensor.
    ///
    /// # Errors
    /// Not a BYTES tensor.
    pub fn to_byte_strings(&self) -> Result<Vec<Vec<u8>>> {
        self.check(Datatype::Bytes)?;
        let data = self.read(0, self.byte_size());
        let mut rest = data.as_slice();
        let mut values = Vec::new();
        while let Some((len, tail)) = rest.split_first_chunk::<4>() {
            let len = u32::from_le_bytes(*len) as usize;
            let (value, tail) = tail
                .split_at_checked(len)
                .ok_or_else(|| Error::internal("a BYTES element breaks off"))?;
            values.push(value.to_vec());
            rest = tail;
        }
        Ok(values)
    }

    fn check(&self, want: Datatype) -> Result<()> {
        let have = self.datatype();
        if have == want {
            return Ok(());
        }
        Err(Error::internal(format_args!("a tensor of {have} can't be read as {want}")))
    }
}

impl Clone for Tensor {
    /// A second handle to the same bytes.
    fn clone(&self) -> Self {
        Self { inner: self.inner.duplicate() }
    }
}

impl From<&Tensor> for Tensor {
    fn from(tensor: &Tensor) -> Self {
        tensor.clone()
    }
}

impl PartialEq for Tensor {
    /// Reads both; meant for tests.
    fn eq(&self, other: &Self) -> bool {
        self.datatype() == other.datatype()
            && self.shape() == other.shape()
            && self.read(0, self.byte_size()) == other.read(0, other.byte_size())
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.datatype(), self.shape())
    }
}

// === impl View ===

impl<T: Element> View<T> {
    fn of(bytes: Vec<u8>) -> Result<Self> {
        if bytemuck::checked::try_cast_slice::<u8, T>(&bytes).is_ok() {
            return Ok(Self(ViewData::Bytes(bytes)));
        }
        Ok(Self(ViewData::Values(read_unaligned(&bytes)?)))
    }

    fn into_vec(self) -> Vec<T> {
        match self.0 {
            ViewData::Values(values) => values,
            ViewData::Bytes(_) => self.to_vec(),
        }
    }
}

impl<T: Element> Deref for View<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.0 {
            ViewData::Bytes(bytes) => bytemuck::checked::cast_slice(bytes),
            ViewData::Values(values) => values,
        }
    }
}

impl<T: Element + fmt::Debug> fmt::Debug for View<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Elements from bytes that need not lie where a `T` may.
fn read_unaligned<T: Element>(bytes: &[u8]) -> Result<Vec<T>> {
    let malformed = |_| Error::internal("a BOOL element is neither 0 nor 1");
    let chunks = bytes.chunks_exact(size_of::<T>());
    let values = chunks.map(bytemuck::checked::try_pod_read_unaligned);
    values.collect::<std::result::Result<_, _>>().map_err(malformed)
}

#[cfg(test)]
mod tests;
