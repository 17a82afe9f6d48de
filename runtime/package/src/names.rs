//! Names that are checked once, when they are parsed.

use std::fmt;
use std::str::FromStr;

/// Longest name of a package, graph, tensor or backend, in bytes. DNS labels
/// allow 63, and names become pod labels and metric labels.
pub const MAX_NAME_LEN: usize = 63;

/// Text that is not a name, with what a name must look like.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {what}: {rule}")]
pub struct NameError {
    what: &'static str,
    text: String,
    rule: &'static str,
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(NameError { what: $what, text: text.to_owned(), rule: $rule })
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }
    };
}

name_type!(
    /// Name of a package, which is the model's name in URLs: a DNS label.
    PackageName,
    "package name",
    "use 1 to 63 of a-z, 0-9 and `-`, starting and ending with a letter or digit",
    is_dns_label
);

name_type!(
    /// Name that guest code passes to `load-by-name`.
    GraphName,
    "graph name",
    "use 1 to 63 of A-Z, a-z, 0-9, `-`, `_` and `.`, starting with a letter or digit",
    is_plain_name
);

name_type!(
    /// Name of an inference backend, such as `tract` or `onnxruntime`.
    BackendName,
    "backend name",
    "use 1 to 63 of A-Z, a-z, 0-9, `-`, `_` and `.`, starting with a letter or digit",
    is_plain_name
);

name_type!(
    /// A path inside a package: relative, `/` between parts, never upwards.
    RelPath,
    "path inside the package",
    "write a relative path with `/` between its parts and without `..`",
    is_rel_path
);

fn is_dns_label(text: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    text.len() <= MAX_NAME_LEN
        && edge(text.bytes().next())
        && edge(text.bytes().last())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn is_plain_name(text: &str) -> bool {
    text.len() <= MAX_NAME_LEN
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

fn is_rel_path(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 4096
        && !text.contains(['\0', '\\'])
        && text.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_names_are_dns_labels() {
        for good in ["a", "filetype", "pp-ocr-v6", "0"] {
            assert!(good.parse::<PackageName>().is_ok(), "{good}");
        }
        let long = "a".repeat(64);
        for bad in ["", "-a", "a-", "A", "a.b", "a/b", "ä", long.as_str()] {
            assert!(bad.parse::<PackageName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_stay_inside_the_package() {
        for good in ["a", "weights/model.onnx", "a..b"] {
            assert!(good.parse::<RelPath>().is_ok(), "{good}");
        }
        for bad in ["", "/a", "a/", "a//b", "..", "a/../b", "./a", "a\\b", "a\0"] {
            assert!(bad.parse::<RelPath>().is_err(), "{bad:?}");
        }
    }
}
