//! Finds an installed libonnxruntime and reads its version from its name.

use std::fs;
use std::path::{Path, PathBuf};

/// How the folder of an installed version starts.
const FOLDER_PREFIX: &str = "onnxruntime-";

/// How the library's file starts; the version follows.
pub(super) const FILE_PREFIX: &str = "libonnxruntime.so";

/// The newest libonnxruntime in `onnxruntime-*` folders of `folders`; an earlier
/// folder wins over a newer version in a later one.
pub(crate) fn find(folders: &[PathBuf]) -> Option<PathBuf> {
    folders.iter().find_map(|folder| newest(folder))
}

/// The newest installed provider: the library `file` in folders of `folders` that start with
/// `prefix`, and its version.
pub(super) fn provider(folders: &[PathBuf], prefix: &str, file: &str) -> Option<(PathBuf, String)> {
    let of = |folder: &PathBuf| {
        let mut versions: Vec<_> = entries(folder)
            .filter(|path| name(path).is_some_and(|name| name.starts_with(prefix)))
            .filter(|path| path.join(file).is_file())
            .collect();
        versions.sort_by_key(|path| name(path).map(numbers));
        versions.pop()
    };
    let folder = folders.iter().find_map(of)?;
    let version = name(&folder)?.strip_prefix(prefix)?.to_owned();
    Some((folder.join(file), version))
}

/// The version in a library's name or in that of its folder.
pub(super) fn version(path: &Path) -> Option<String> {
    // The plain name is often a link to the one with the version.
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let file = name(&real).and_then(|name| name.strip_prefix(FILE_PREFIX)?.strip_prefix('.'));
    let folder = || real.parent().and_then(name)?.strip_prefix(FOLDER_PREFIX);
    let is_version = |text: &&str| text.contains('.') && !numbers(text).is_empty();
    file.filter(is_version).or_else(folder).map(str::to_owned)
}

fn newest(folder: &Path) -> Option<PathBuf> {
    let mut versions: Vec<_> = entries(folder)
        .filter(|path| name(path).is_some_and(|name| name.starts_with(FOLDER_PREFIX)))
        .collect();
    versions.sort_by_key(|path| name(path).map(numbers));
    versions.iter().rev().find_map(|folder| library_in(folder))
}

fn library_in(folder: &Path) -> Option<PathBuf> {
    let is_library = |path: &PathBuf| {
        name(path).is_some_and(|name| name.starts_with(FILE_PREFIX)) && path.is_file()
    };
    entries(folder).filter(is_library).min()
}

pub(super) fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

pub(super) fn name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

/// The numbers in a text, so that 1.9 comes before 1.10.
fn numbers(text: &str) -> Vec<u64> {
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn install(root: &Path, folder: &str, file: &str) -> PathBuf {
        let path = root.join(folder).join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "").unwrap();
        path
    }

    #[test]
    fn the_newest_version_of_the_first_folder_that_has_one_is_found() {
        let root = tempfile::tempdir().unwrap();
        let (first, second) = (root.path().join("first"), root.path().join("second"));
        let folders = [root.path().join("absent"), first.clone(), second.clone()];
        assert_eq!(find(&folders), None);
        let later = install(&second, "onnxruntime-2.0.0", "libonnxruntime.so.2.0.0");
        assert_eq!(find(&folders), Some(later));
        install(&first, "onnxruntime-1.9.0", "libonnxruntime.so.1.9.0");
        let newer = install(&first, "onnxruntime-1.10.0", "libonnxruntime.so.1.10.0");
        install(&first, "onnxruntime-1.11.0", "LICENSE");
        install(&first, "other-9", "libonnxruntime.so.9");
        assert_eq!(find(&folders), Some(newer));
    }

    #[test]
    fn the_version_is_in_the_name_of_the_file_or_of_its_folder() {
        let of = |path: &str| version(Path::new(path));
        assert_eq!(of("/a/libonnxruntime.so.1.32.0").as_deref(), Some("1.32.0"));
        assert_eq!(of("/a/onnxruntime-1.30.1/libonnxruntime.so").as_deref(), Some("1.30.1"));
        assert_eq!(of("/a/onnxruntime-1.30.1/libonnxruntime.so.1").as_deref(), Some("1.30.1"));
        assert_eq!(of("/a/libonnxruntime.so"), None);
    }
}
