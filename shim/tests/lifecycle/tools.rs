//! Where containerd and runc are: on PATH, or where `cargo xtask cluster` has put them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The folders of the cluster's tools, and PATH.
pub fn folders() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let home = std::env::var_os("HOME").unwrap_or_default();
    let bin = Path::new(&home).join(".cache/wick/cluster/bin");
    let mut folders: Vec<PathBuf> =
        std::fs::read_dir(bin).into_iter().flatten().flatten().map(|e| e.path()).collect();
    folders.sort();
    folders.extend(std::env::split_paths(&path));
    folders
}

/// The same, as the environment has it.
pub fn path() -> OsString {
    std::env::join_paths(folders()).unwrap()
}

pub fn find(name: &str) -> Option<PathBuf> {
    folders().into_iter().map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Whether a tool is there. Without it a case says so and does nothing, under CI it fails.
pub fn has(name: &str) -> bool {
    let found = find(name).is_some();
    assert!(found || std::env::var_os("CI").is_none(), "{name} is missing, and this is CI");
    if !found {
        println!("  skipped: {name} is not installed");
    }
    found
}
