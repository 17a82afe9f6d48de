//! Tensors by name.

use std::fmt;

use crate::{Error, Result, Tensor};

/// Tensors by name, in an order: what goes into a graph and what comes out.
///
/// ```
/// use wick_guest::{Tensor, Tensors};
///
/// let tensors = Tensors::new()
///     .with("width", Tensor::new(&[1], [640_u32])?)
///     .with("height", Tensor::new(&[1], [480_u32])?);
/// assert_eq!(tensors.get("width")?.to_vec::<u32>()?, [640]);
/// let error = tensors.get("depth").unwrap_err();
/// assert_eq!(error.to_string(), "there is no tensor `depth` among `width`, `height`");
/// # Ok::<(), wick_guest::Error>(())
/// ```
#[derive(Clone, Default, PartialEq)]
pub struct Tensors(Vec<(String, Tensor)>);

// === impl Tensors ===

impl Tensors {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// These, and one more.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, tensor: impl Into<Tensor>) -> Self {
        self.push(name, tensor);
        self
    }

    /// Add one at the end.
    pub fn push(&mut self, name: impl Into<String>, tensor: impl Into<Tensor>) {
        self.0.push((name.into(), tensor.into()));
    }

    /// The first tensor of that name.
    ///
    /// # Errors
    /// There is none: an internal error that names those that there are.
    pub fn get(&self, name: &str) -> Result<&Tensor> {
        self.find(name).ok_or_else(|| Error::internal(self.missing(name)))
    }

    /// The first tensor of that name, or none.
    pub fn find(&self, name: &str) -> Option<&Tensor> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, tensor)| tensor)
    }

    /// Take the first tensor of that name out.
    pub fn remove(&mut self, name: &str) -> Option<Tensor> {
        let at = self.0.iter().position(|(own, _)| own == name)?;
        Some(self.0.remove(at).1)
    }

    /// Names and tensors in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.0.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn missing(&self, name: &str) -> String {
        if self.is_empty() {
            return format!("there is no tensor `{name}`: there are none at all");
        }
        let names: Vec<_> = self.0.iter().map(|(name, _)| format!("`{name}`")).collect();
        format!("there is no tensor `{name}` among {}", names.join(", "))
    }
}

impl fmt::Debug for Tensors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<N: Into<String>, T: Into<Tensor>> FromIterator<(N, T)> for Tensors {
    fn from_iter<I: IntoIterator<Item = (N, T)>>(items: I) -> Self {
        Self(items.into_iter().map(|(name, tensor)| (name.into(), tensor.into())).collect())
    }
}

impl IntoIterator for Tensors {
    type Item = (String, Tensor);
    type IntoIter = std::vec::IntoIter<(String, Tensor)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
