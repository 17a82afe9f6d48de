//! A model as a site is told of it: which image, and what it costs to have it.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::Error as _;
use wick_package::{Digest, ImageRef, PackageName};

/// Most models of one site. All of them are in one message.
pub const MAX_MODELS: usize = 64;

/// Longest name of an image.
const MAX_IMAGE: usize = 255;

/// One version of a model. Two with the same name and digest are the same, whatever they cost.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Model {
    #[serde(deserialize_with = "name")]
    pub name: PackageName,
    /// The repository that the bytes come from. Which bytes, the digest says.
    pub image: String,
    pub digest: Digest,
    /// On disk.
    pub bytes: u64,
    /// When it is loaded.
    pub memory: u64,
}

/// A list of models that no site can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelsError {
    #[error("there are {0} models, and a site has at most {MAX_MODELS}: use two sites")]
    Many(usize),
    #[error("the model `{0}` is there twice: leave one out")]
    Twice(PackageName),
    #[error("the image of model `{0}` is not one: write a repository such as `registry/a/b`")]
    Image(PackageName),
    #[error("the models need more than a number can say")]
    Vast,
}

fn name<'de, D: serde::Deserializer<'de>>(d: D) -> Result<PackageName, D::Error> {
    <String as serde::Deserialize>::deserialize(d)?.parse().map_err(D::Error::custom)
}

/// Whether a site can have these models together.
///
/// # Errors
/// Too many, one twice, or an image that is none.
pub fn check_models(models: &[Model]) -> Result<(), ModelsError> {
    if models.len() > MAX_MODELS {
        return Err(ModelsError::Many(models.len()));
    }
    let mut names = BTreeSet::new();
    let mut sum: u64 = 0;
    for model in models {
        if !names.insert(&model.name) {
            return Err(ModelsError::Twice(model.name.clone()));
        }
        if model.image.len() > MAX_IMAGE || model.image.parse::<ImageRef>().is_err() {
            return Err(ModelsError::Image(model.name.clone()));
        }
        let more = model.bytes.checked_add(model.memory).and_then(|more| sum.checked_add(more));
        sum = more.ok_or(ModelsError::Vast)?;
    }
    Ok(())
}

/// Memory of all these versions at once, each counted once.
pub fn memory_of<'a>(models: impl IntoIterator<Item = &'a Model>) -> u64 {
    let each: BTreeMap<_, _> =
        models.into_iter().map(|model| ((&model.name, model.digest), model.memory)).collect();
    each.values().fold(0, |sum: u64, memory| sum.saturating_add(*memory))
}

/// Disk of all these versions at once. Bytes are by digest, whatever they are called.
pub fn disk_of<'a>(models: impl IntoIterator<Item = &'a Model>) -> u64 {
    let each: BTreeMap<_, _> =
        models.into_iter().map(|model| (model.digest, model.bytes)).collect();
    each.values().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes))
}
