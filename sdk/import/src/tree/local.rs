//! A file or folder on this disk.
//!
//! The folder that was named is the border: links inside it are followed, links out of it are
//! not, unless that was asked for. The one exception is Hugging Face's cache, whose snapshots
//! consist of links into `blobs` beside them: the border is then the model's folder in the cache.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use wick_package::{Package, RelPath};

use super::{MAX_FILES, Opened, Tree, artifact};
use crate::choose::{self, Entry};
use crate::error::ImportError;
use crate::format::Format;
use crate::mlmodel;
use crate::names;

/// How deep folders are looked into.
const MAX_DEPTH: usize = 12;

/// How many folders above a model are asked for a name.
const NAMING_FOLDERS: usize = 4;

/// Files that say what a whole folder is.
const MARKS: [(&str, Format); 3] = [
    ("wick.toml", Format::Wick),
    ("saved_model.pb", Format::SavedModel),
    ("Data/com.apple.CoreML", Format::CoreMlPackage),
];

/// Files below a folder.
#[derive(Debug)]
pub(crate) struct LocalTree {
    /// Resolved.
    root: PathBuf,
    /// Links may lead anywhere below it.
    border: PathBuf,
    follow_links: bool,
    entries: Vec<Entry>,
    /// Where the only entry is, if it was named itself: a link in its place is followed.
    named: Option<PathBuf>,
}

/// What is wanted of a folder.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) follow_links: bool,
    /// Which of several artifacts of a layout.
    pub(crate) reference: Option<&'a str>,
    /// Largest file that is taken.
    pub(crate) max_size: u64,
}

/// Open a file or folder.
pub(crate) fn open(path: &Path, wanted: Wanted<'_>) -> Result<Opened, ImportError> {
    let origin = path.display().to_string();
    // The source may be a link itself: it was named.
    let real = fs::canonicalize(path).map_err(ImportError::read(path))?;
    let meta = fs::metadata(&real).map_err(ImportError::read(path))?;
    if !meta.is_dir() {
        return open_file(path, real, origin, wanted.follow_links);
    }
    if real.join("oci-layout").is_file() {
        // A package of wick is an image layout as well.
        if Package::open(&real).is_ok() {
            return Err(ImportError::OtherFormat { place: origin, format: Format::Wick });
        }
        return artifact::open(&real, origin, wanted.reference, wanted.max_size);
    }
    let snapshot = snapshot(&real)?;
    let root = snapshot.as_deref().unwrap_or(&real);
    let cache = cache_folder(root);
    let border = cache.clone().unwrap_or_else(|| root.to_owned());
    let entries = list(root)?;
    let has_model = entries.iter().any(|entry| choose::is_onnx(&entry.path));
    let mark = MARKS.iter().find(|(file, _)| root.join(file).exists());
    if let Some((file, format)) = mark
        && (*file == "wick.toml" || !has_model)
    {
        return Err(ImportError::OtherFormat { place: origin, format: *format });
    }
    let words = words(root);
    let (root, follow_links) = (root.to_owned(), wanted.follow_links);
    let tree = LocalTree { root, border, follow_links, entries, named: None };
    let model = tree.mlmodel(&origin)?;
    let mut opened = Opened::new(Tree::Local(tree), origin);
    opened.model = model;
    opened.words = words;
    opened.of_cache(cache.as_deref());
    Ok(opened)
}

fn open_file(
    path: &Path,
    real: PathBuf,
    origin: String,
    follow_links: bool,
) -> Result<Opened, ImportError> {
    // Data beside the model is looked for beside the name that was given, as every reader of ONNX
    // does it, not beside what a link leads to.
    let beside = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let beside = beside.unwrap_or_else(|| Path::new("."));
    let root = fs::canonicalize(beside).map_err(ImportError::read(beside))?;
    let name = path.file_name().and_then(|name| name.to_str()?.parse::<RelPath>().ok());
    let name = name.ok_or_else(|| ImportError::Source {
        text: origin.clone(),
        why: "the name of a file must be text without a backslash".to_owned(),
    })?;
    let len = fs::metadata(&real).map_err(ImportError::read(&real))?.len();
    let mut words = words(&root);
    words.insert(0, name.to_string());
    let entries = vec![Entry { path: name, len: Some(len) }];
    let cache = cache_folder(&root);
    let border = cache.clone().unwrap_or_else(|| root.clone());
    let tree = LocalTree { root, border, follow_links, entries, named: Some(real) };
    let mut opened = Opened::new(Tree::Local(tree), origin);
    opened.words = words;
    opened.of_cache(cache.as_deref());
    Ok(opened)
}

// === impl Opened ===

impl Opened {
    /// Say what a model in Hugging Face's cache is called, and that links were followed.
    fn of_cache(&mut self, cache: Option<&Path>) {
        let Some(cache) = cache else { return };
        let folder = cache.file_name().unwrap_or_default().to_string_lossy();
        self.name = names::of_cache_folder(&folder).map(str::to_owned);
        let blobs = cache.join("blobs");
        self.notes.push(format!("links of the snapshot into {} were followed", blobs.display()));
    }
}

// === impl LocalTree ===

impl LocalTree {
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.entries.clone()
    }

    /// Where a file really is.
    pub(crate) fn locate(&self, path: &RelPath) -> Result<PathBuf, ImportError> {
        if let (Some(named), Some(entry)) = (&self.named, self.entries.first())
            && entry.path == *path
        {
            return Ok(named.clone());
        }
        let full = self.root.join(path.as_str());
        let real = fs::canonicalize(&full).map_err(ImportError::read(&full))?;
        if !self.follow_links && !real.starts_with(&self.border) {
            return Err(ImportError::Link { path: full, target: real });
        }
        Ok(real)
    }

    pub(crate) fn head(&self, path: &RelPath, most: usize) -> Result<Vec<u8>, ImportError> {
        let path = self.locate(path)?;
        let mut bytes = Vec::new();
        let read =
            File::open(&path).and_then(|file| file.take(most as u64).read_to_end(&mut bytes));
        read.map_err(ImportError::read(&path))?;
        Ok(bytes)
    }

    /// The model, where the folder is one that MLflow saved.
    fn mlmodel(&self, origin: &str) -> Result<Option<String>, ImportError> {
        let Ok(path) = mlmodel::FILE.parse::<RelPath>() else { return Ok(None) };
        if !self.entries.iter().any(|entry| entry.path == path) {
            return Ok(None);
        }
        let text = self.head(&path, mlmodel::MAX_LEN)?;
        mlmodel::onnx_file(&String::from_utf8_lossy(&text), origin).map(Some)
    }
}

/// The files below a folder, in order. Folders that are links are not looked into.
fn list(root: &Path) -> Result<Vec<Entry>, ImportError> {
    let mut entries = Vec::new();
    let mut folders = vec![(root.to_owned(), String::new(), 0)];
    while let Some((folder, prefix, depth)) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(ImportError::read(&folder))? {
            let entry = entry.map_err(ImportError::read(&folder))?;
            let kind = entry.file_type().map_err(ImportError::read(&folder))?;
            // A name that is no text can't be a model's, nor can one in a hidden folder.
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path = format!("{prefix}{name}");
            if kind.is_dir() {
                if depth < MAX_DEPTH && !name.starts_with('.') {
                    folders.push((entry.path(), format!("{path}/"), depth + 1));
                }
                continue;
            }
            let len = fs::metadata(entry.path()).ok().filter(fs::Metadata::is_file);
            if let (Some(meta), Ok(path)) = (len, path.parse()) {
                entries.push(Entry { path, len: Some(meta.len()) });
            }
            if entries.len() > MAX_FILES {
                let place = root.display().to_string();
                return Err(ImportError::TooMany { place, most: MAX_FILES });
            }
        }
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(entries)
}

/// The snapshot of a model's folder in Hugging Face's cache: that of `main`, or the only one.
fn snapshot(root: &Path) -> Result<Option<PathBuf>, ImportError> {
    let snapshots = root.join("snapshots");
    if !is_cache_folder(root) || !snapshots.is_dir() {
        return Ok(None);
    }
    let main = fs::read_to_string(root.join("refs/main")).unwrap_or_default();
    if let Ok(main) = main.trim().parse::<RelPath>()
        && snapshots.join(main.as_str()).is_dir()
    {
        return Ok(Some(snapshots.join(main.as_str())));
    }
    let entries = fs::read_dir(&snapshots).map_err(ImportError::read(&snapshots))?;
    let mut all: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    all.retain(|path| path.is_dir());
    match all.as_slice() {
        [only] => Ok(Some(only.clone())),
        _ => Err(ImportError::Source {
            text: root.display().to_string(),
            why: format!("it has {} snapshots: name one of {}/*", all.len(), snapshots.display()),
        }),
    }
}

/// The model's folder in Hugging Face's cache that a folder below `snapshots` is of.
fn cache_folder(path: &Path) -> Option<PathBuf> {
    let of = |folder: &&Path| {
        let snapshots = folder.parent();
        snapshots.is_some_and(|folder| folder.ends_with("snapshots"))
            && snapshots.and_then(Path::parent).is_some_and(is_cache_folder)
    };
    path.ancestors().find(of)?.parent()?.parent().map(Path::to_owned)
}

fn is_cache_folder(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| names::of_cache_folder(name).is_some())
}

/// Names of the folders from the innermost outwards.
fn words(root: &Path) -> Vec<String> {
    let folders = root.ancestors().filter_map(Path::file_name).take(NAMING_FOLDERS);
    folders.map(|name| name.to_string_lossy().into_owned()).collect()
}
