//! The text files of the tree, read once.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// A text file.
pub struct File {
    /// Relative to the root, `/` between its parts.
    pub path: String,
    pub text: String,
}

/// Folders that are not the tree's own.
const SKIPPED: &[&str] = &[".git", "target", "dist", "samples", "node_modules", "__pycache__"];

/// What is text. Files without an extension are looked up by name.
const EXTENSIONS: &[&str] = &["md", "py", "rs", "sh", "toml", "wit"];
const NAMES: &[&str] = &["run", ".gitignore", ".gitattributes"];

/// Largest file that is read, in bytes; a larger one is no source.
const MAX_SIZE: u64 = 1 << 20;

// === impl File ===

impl File {
    pub fn extension(&self) -> &str {
        self.path.rsplit_once('.').map_or("", |(_, extension)| extension)
    }

    /// Whether all of it is test code.
    pub fn is_test(&self) -> bool {
        let parts: Vec<&str> = self.path.split('/').collect();
        parts.contains(&"tests") || self.path.ends_with("/tests.rs")
    }
}

/// All text files under a folder, sorted.
pub fn read(root: &Path) -> anyhow::Result<Vec<File>> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).with_context(|| format!("{}", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type()?;
            if kind.is_dir() && !SKIPPED.contains(&name.as_str()) {
                folders.push(entry.path());
            } else if kind.is_file() && is_text(&name) && entry.metadata()?.len() <= MAX_SIZE {
                files.push(read_file(root, &entry.path())?);
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn is_text(name: &str) -> bool {
    let extension = name.rsplit_once('.').map(|(_, extension)| extension);
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension)) || NAMES.contains(&name)
}

fn read_file(root: &Path, path: &PathBuf) -> anyhow::Result<File> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let path = path.strip_prefix(root).unwrap_or(path).to_string_lossy().replace('\\', "/");
    Ok(File { path, text })
}
