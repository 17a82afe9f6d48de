//! The files of a source, wherever they are: on this disk, in the layers of an artifact, or
//! elsewhere. What an import does with them is the same for all.

pub(crate) mod artifact;
pub(crate) mod local;

use std::collections::BTreeMap;
use std::path::Path;

use wick_package::RelPath;

use crate::choose::Entry;
use crate::download;
use crate::error::ImportError;
use crate::place::Local;
use crate::progress::Meter;
use crate::remote::Remote;
use artifact::ArtifactTree;
use local::LocalTree;

/// Most files of one source. A model has some tens.
pub(crate) const MAX_FILES: usize = 20_000;

/// The files of a source.
#[derive(Debug)]
pub(crate) enum Tree {
    Local(LocalTree),
    Artifact(ArtifactTree),
    Remote(RemoteTree),
}

/// Files that have to be fetched.
#[derive(Debug)]
pub(crate) struct RemoteTree {
    /// For messages.
    pub(crate) place: String,
    pub(crate) files: BTreeMap<RelPath, (Remote, Option<u64>)>,
    /// Files beside the only one may be there, although no list tells.
    pub(crate) has_siblings: bool,
}

/// A source that was opened: its files, and what it says of itself.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) tree: Tree,
    /// Where it is, for people and for the manifest.
    pub(crate) origin: String,
    /// Candidates for the package's name behind the model file's own, most specific first.
    pub(crate) words: Vec<String>,
    /// A name that is better than the model file's.
    pub(crate) name: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) description: Option<String>,
    /// The model, where the source says which it is.
    pub(crate) model: Option<String>,
    /// What the user should know.
    pub(crate) notes: Vec<String>,
}

// === impl Opened ===

impl Opened {
    pub(crate) fn new(tree: Tree, origin: String) -> Self {
        Self {
            tree,
            origin,
            words: Vec::new(),
            name: None,
            version: None,
            description: None,
            model: None,
            notes: Vec::new(),
        }
    }
}

// === impl Tree ===

impl Tree {
    /// All files that are known.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        match self {
            Self::Local(tree) => tree.entries(),
            Self::Artifact(tree) => tree.entries(),
            Self::Remote(tree) => {
                let entry = |(path, (_, len)): (&RelPath, &(Remote, Option<u64>))| Entry {
                    path: path.clone(),
                    len: *len,
                };
                tree.files.iter().map(entry).collect()
            }
        }
    }

    /// Whether looking at a file means to fetch it.
    pub(crate) fn is_elsewhere(&self) -> bool {
        matches!(self, Self::Remote(_))
    }

    /// The first bytes of a file.
    pub(crate) async fn head(&self, path: &RelPath, most: usize) -> Result<Vec<u8>, ImportError> {
        match self {
            Self::Local(tree) => tree.head(path, most),
            Self::Artifact(tree) => tree.head(path, most),
            Self::Remote(tree) => tree.find(path)?.head(most).await,
        }
    }

    /// A file on this disk; what has to be fetched arrives in `parts`.
    pub(crate) async fn bring(
        &self,
        path: &RelPath,
        parts: &Path,
        most: u64,
        meter: &mut Meter<'_>,
    ) -> Result<Local, ImportError> {
        match self {
            Self::Local(tree) => tree.locate(path).map(Local::Theirs),
            Self::Artifact(tree) => tree.extract(path, parts, meter),
            Self::Remote(tree) => {
                let remote = tree.find(path)?;
                download::fetch(&remote, parts, most, meter).await.map(Local::Ours)
            }
        }
    }

    /// For messages.
    pub(crate) fn place(&self, path: &RelPath) -> String {
        match self {
            Self::Local(tree) => tree.root().join(path.as_str()).display().to_string(),
            Self::Artifact(tree) => format!("{path} of {}", tree.place()),
            Self::Remote(tree) => match tree.find(path) {
                Ok(remote) => remote.to_string(),
                Err(_) => format!("{path} of {}", tree.place),
            },
        }
    }
}

// === impl RemoteTree ===

impl RemoteTree {
    fn find(&self, path: &RelPath) -> Result<Remote, ImportError> {
        if let Some((remote, _)) = self.files.get(path) {
            return Ok(remote.clone());
        }
        let first = self.files.values().next().filter(|_| self.has_siblings);
        let sibling = first.and_then(|(remote, _)| remote.sibling(path));
        sibling.ok_or_else(|| ImportError::missing(&self.place, path))
    }
}
