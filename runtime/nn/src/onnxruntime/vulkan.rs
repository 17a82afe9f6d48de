//! Vulkan's drivers, as the Vulkan loader finds them: files in JSON that name libraries.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::find::entries;

/// Where such files are, as the loader's documentation has it, but for a user's own.
const FOLDERS: [&str; 3] =
    ["/etc/vulkan/icd.d", "/usr/local/share/vulkan/icd.d", "/usr/share/vulkan/icd.d"];

/// Files that are used instead, with colons between.
const FILES: &str = "VK_DRIVER_FILES";

/// What the loader called them before.
const FILES_BEFORE: &str = "VK_ICD_FILENAMES";

/// What keeps the loader from layers that nobody has asked for by name.
const NO_LAYERS: [&str; 2] = ["VK_LOADER_LAYERS_DISABLE", "~implicit~"];

/// Drivers of one machine, and bytes of a file: those of Mesa and NVIDIA are ten, of 200 bytes each.
const MAX_DRIVERS: usize = 12;
const MAX_FILE: u64 = 4096;

/// A driver's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriverFile {
    /// The file's name.
    pub name: String,
    /// Its text, with a path to the library that does not depend on where the file is.
    pub text: String,
    /// The library: its path, or a name that is looked for.
    pub library: String,
}

/// The drivers of this machine; `named` has the value of `VK_DRIVER_FILES`, if it is set.
pub(super) fn find(named: Option<&str>) -> Vec<DriverFile> {
    let files: Vec<PathBuf> = match named {
        Some(named) => named.split(':').map(PathBuf::from).collect(),
        None => FOLDERS.iter().flat_map(|folder| in_folder(Path::new(folder))).collect(),
    };
    let manifests = files.iter().filter_map(|file| read(file));
    manifests.enumerate().take(MAX_DRIVERS).map(|(number, one)| one.numbered(number)).collect()
}

/// The value of `VK_DRIVER_FILES` in this process.
pub(super) fn named() -> Option<String> {
    std::env::var(FILES).ok().filter(|files| !files.is_empty())
}

/// Variables by which the loader finds what was written to `folder`.
pub(super) fn variables(manifests: &[DriverFile], folder: &Path) -> Vec<(String, String)> {
    let paths: Vec<_> =
        manifests.iter().map(|one| folder.join(&one.name).display().to_string()).collect();
    let files = [FILES, FILES_BEFORE].map(|name| (name.to_owned(), paths.join(":")));
    // Where the loader looks for layers is the image's, and code of it must not even be looked at.
    let layers = NO_LAYERS.map(str::to_owned).into();
    files.into_iter().chain([layers]).collect()
}

fn in_folder(folder: &Path) -> Vec<PathBuf> {
    let is_json = |path: &PathBuf| path.extension().is_some_and(|end| end == "json");
    let mut files: Vec<_> = entries(folder).filter(is_json).collect();
    files.sort_unstable();
    files
}

/// What a file says; none if it is no driver's.
fn read(file: &Path) -> Option<DriverFile> {
    let mut text = String::new();
    File::open(file).ok()?.take(MAX_FILE).read_to_string(&mut text).ok()?;
    let mut value: Value = serde_json::from_str(&text).ok()?;
    let library = value.get_mut("ICD")?.get_mut("library_path")?;
    // A name alone is the loader's to find; any other path starts where the file is.
    let path = library.as_str()?;
    let path = if path.contains('/') {
        file.parent()?.join(path).to_str()?.to_owned()
    } else {
        path.to_owned()
    };
    *library = Value::from(path.as_str());
    let name = file.file_name()?.to_str()?.to_owned();
    Some(DriverFile { name, text: value.to_string(), library: path })
}

// === impl DriverFile ===

impl DriverFile {
    /// Files of several folders may have one name.
    fn numbered(mut self, number: usize) -> Self {
        self.name = format!("{number}-{}", self.name);
        self
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn drivers_are_found_by_their_files_with_paths_that_hold_anywhere() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = root.path().join(name);
            fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let icd = |path: &str| {
            format!(r#"{{"file_format_version":"1.0.0","ICD":{{"library_path":"{path}","x":1}}}}"#)
        };
        let files = [
            write("by-name.json", &icd("libvulkan_x.so")),
            write("absolute.json", &icd("/lib/y.so")),
            write("beside.json", &icd("../lib/z.so")),
            write("broken.json", "{"),
            write("large.json", &" ".repeat(5000)),
            root.path().join("absent.json").display().to_string(),
        ];
        let found = find(Some(&files.join(":")));
        let libraries: Vec<_> = found.iter().map(|one| one.library.as_str()).collect();
        let beside = root.path().join("../lib/z.so").display().to_string();
        assert_eq!(libraries, ["libvulkan_x.so", "/lib/y.so", &beside]);
        assert!(found[2].text.contains(&beside) && found[2].text.contains("\"x\":1"));
        let variables = variables(&found[..2], Path::new("/run/drivers"));
        let value = "/run/drivers/0-by-name.json:/run/drivers/1-absolute.json";
        assert_eq!(variables[0], ("VK_DRIVER_FILES".to_owned(), value.to_owned()));
        assert!(variables.contains(&NO_LAYERS.map(str::to_owned).into()), "{variables:?}");
        assert_eq!(in_folder(root.path()).len(), 5);
        assert!(find(Some("")).is_empty());
    }
}
