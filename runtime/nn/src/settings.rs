//! What the host decides about inference.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use crate::cpus;

/// What the host decides about inference.
#[derive(Debug, Clone)]
pub struct NnSettings {
    /// Folders that `wick backend install` fills, searched in order.
    pub backend_dirs: Vec<PathBuf>,
    /// A libonnxruntime to use instead of searching.
    pub onnxruntime: Option<PathBuf>,
    /// Folder for optimised graphs; none turns caching off.
    pub cache: Option<PathBuf>,
    /// CPUs that this process may use: threads of an inference and of the compute
    /// pool are bounded by it.
    pub cpus: usize,
}

// === impl NnSettings ===

impl NnSettings {
    /// Settings for this machine: CPUs from affinity and the cgroup's quota,
    /// backends and cache in the user's folders, and `WICK_ORT_DYLIB` for a
    /// libonnxruntime elsewhere.
    pub fn detect() -> Self {
        Self::from_environment(|name| env::var_os(name), cpus::detect())
    }

    fn from_environment(get: impl Fn(&str) -> Option<OsString>, cpus: usize) -> Self {
        let set = |name: &str| get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        // The XDG specification says that a relative path is to be ignored.
        let folder = |xdg: &str, home: &str| {
            let named = set(xdg).filter(|path| path.is_absolute());
            named.or_else(|| set("HOME").map(|path| path.join(home)))
        };
        let data = folder("XDG_DATA_HOME", ".local/share");
        Self {
            backend_dirs: data.into_iter().map(|path| path.join("wick/backends")).collect(),
            onnxruntime: set("WICK_ORT_DYLIB"),
            cache: folder("XDG_CACHE_HOME", ".cache").map(|path| path.join("wick/graphs")),
            cpus,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> NnSettings {
        let get = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| OsString::from(value))
        };
        NnSettings::from_environment(get, 2)
    }

    #[test]
    fn folders_are_below_the_home_folder_unless_xdg_says_otherwise() {
        let plain = settings(&[("HOME", "/home/a"), ("XDG_CACHE_HOME", "relative")]);
        assert_eq!(plain.backend_dirs, [PathBuf::from("/home/a/.local/share/wick/backends")]);
        assert_eq!(plain.cache, Some("/home/a/.cache/wick/graphs".into()));
        assert_eq!(plain.onnxruntime, None);
        let moved = settings(&[
            ("XDG_DATA_HOME", "/data"),
            ("XDG_CACHE_HOME", "/cache"),
            ("WICK_ORT_DYLIB", "/ort.so"),
        ]);
        assert_eq!(moved.backend_dirs, [PathBuf::from("/data/wick/backends")]);
        assert_eq!(moved.cache, Some("/cache/wick/graphs".into()));
        assert_eq!(moved.onnxruntime, Some("/ort.so".into()));
    }

    #[test]
    fn without_a_home_there_is_no_cache_and_nothing_to_search() {
        let bare = settings(&[]);
        assert_eq!((bare.backend_dirs.len(), bare.cache), (0, None));
    }
}
