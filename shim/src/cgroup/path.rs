//! `linux.cgroupsPath` of a spec as a path below a hierarchy's root: the cgroupfs form is a
//! path, the systemd form is `slice:prefix:name`.

use std::fmt;
use std::path::{Component, Path, PathBuf};

/// Longest name of a group: the kernel's for any file.
const MAX_NAME: usize = 255;

/// Longest path below a hierarchy's root. The kernel takes 4095 bytes in all, and before this one
/// comes the root, behind it a control file.
const MAX_PATH: usize = 3800;

/// A path below a hierarchy's root.
///
/// Invariant: relative, not empty, without `..`, and not longer than the kernel takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupPath(PathBuf);

/// Text that names no group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathError {
    NotAGroup(String),
    TooLong,
}

// === impl CgroupPath ===

impl CgroupPath {
    /// # Errors
    /// The text names the root, leaves it, is a malformed slice, or is too long.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let wrong = || PathError::NotAGroup(text.to_owned());
        let parts: Vec<&str> = text.split(':').collect();
        let path = match parts.as_slice() {
            [slice, prefix, name] if !text.starts_with('/') => {
                let scope = match (*prefix, name.ends_with(".slice")) {
                    (_, true) => (*name).to_owned(),
                    ("", false) => format!("{name}.scope"),
                    (prefix, false) => format!("{prefix}-{name}.scope"),
                };
                expand_slice(slice).ok_or_else(wrong)?.join(scope)
            }
            _ => PathBuf::from(text),
        };
        let mut clean = PathBuf::new();
        for part in path.components() {
            match part {
                Component::Normal(name) => clean.push(name),
                Component::RootDir | Component::CurDir => {}
                Component::ParentDir | Component::Prefix(_) => return Err(wrong()),
            }
        }
        // Before it is made: otherwise the parents of what is too long would stay.
        let too_long = |part: Component<'_>| part.as_os_str().len() > MAX_NAME;
        if clean.as_os_str().len() > MAX_PATH || clean.components().any(too_long) {
            return Err(PathError::TooLong);
        }
        if clean.as_os_str().is_empty() { Err(wrong()) } else { Ok(Self(clean)) }
    }

    pub fn relative(&self) -> &Path {
        &self.0
    }
}

/// `a-b-c.slice` lies in `a.slice/a-b.slice/`; an empty slice is `system.slice`.
fn expand_slice(slice: &str) -> Option<PathBuf> {
    let slice = if slice.is_empty() { "system.slice" } else { slice };
    if slice == "-.slice" {
        return Some(PathBuf::new());
    }
    let stem = slice.strip_suffix(".slice").filter(|s| !s.is_empty() && !s.contains('/'))?;
    let mut path = PathBuf::new();
    let mut name = String::new();
    for part in stem.split('-') {
        if part.is_empty() {
            return None;
        }
        name = if name.is_empty() { part.to_owned() } else { format!("{name}-{part}") };
        path.push(format!("{name}.slice"));
    }
    Some(path)
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAGroup(text) => write!(f, "`{text}` is not the path of a control group"),
            Self::TooLong => write!(
                f,
                "the path is longer than the kernel takes: {MAX_NAME} bytes a name, \
                 {MAX_PATH} in all"
            ),
        }
    }
}

impl std::error::Error for PathError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        let path = CgroupPath::parse(text).ok();
        assert_eq!(path.as_ref().map(|p| p.relative().to_str().unwrap()), expected, "{text}");
    }

    #[test]
    fn both_drivers_forms_are_understood() {
        check("/kubepods/besteffort/pod1/abc", Some("kubepods/besteffort/pod1/abc"));
        check("default/abc", Some("default/abc"));
        check(
            "kubepods-besteffort-pod1_2.slice:cri-containerd:abc",
            Some(
                "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1_2.slice/cri-containerd-abc.scope",
            ),
        );
        check(":cri:abc", Some("system.slice/cri-abc.scope"));
        check("-.slice::abc", Some("abc.scope"));
    }

    #[test]
    fn a_path_is_no_longer_than_the_kernel_takes() {
        let (name, long) = ("n".repeat(255), "n".repeat(256));
        let is_too_long = |text: &str| CgroupPath::parse(text) == Err(PathError::TooLong);
        assert!(!is_too_long(&name) && is_too_long(&long));
        // `kubepods.slice` and the rest of a scope's name count too.
        assert!(!is_too_long(&format!("a.slice:p:{}", "n".repeat(247))));
        assert!(is_too_long(&format!("a.slice:p:{}", "n".repeat(248))));
        let deep = |count: usize| vec![name.as_str(); count].join("/");
        assert!(!is_too_long(&deep(14)) && is_too_long(&deep(15)));
    }

    #[test]
    fn a_path_that_leaves_the_root_or_is_the_root_is_refused() {
        for text in ["", "/", "/a/../../b", "a-/b.slice:x:y", "nothing:x:y", "a--b.slice:x:y"] {
            check(text, None);
        }
    }
}
