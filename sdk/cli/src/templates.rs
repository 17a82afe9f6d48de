//! What `wick new` writes: files with two placeholders, compiled into the executable.

use std::path::Path;

/// A kind of package to start from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Template {
    /// A model without code.
    Passthrough,
    /// A model with a handler in Rust.
    Handler,
    /// A model behind an HTTP interface of its own (wasi:http).
    Http,
}

/// A file of a new package.
pub struct File {
    pub path: &'static str,
    pub content: Vec<u8>,
}

/// What the placeholders stand for.
pub struct Values<'a> {
    /// The package's name.
    pub name: &'a str,
    /// Where wick-guest's source is; none takes the published crate.
    pub sdk: Option<&'a Path>,
}

/// A model that every template works with until there is a real one: `y = softmax(x)`,
/// FP32 `[batch, 4]`.
const MODEL: &[u8] = include_bytes!("templates/softmax.onnx");

const WASI_NN: &str = include_str!("../../wit/deps/wasi-nn.wit");
const GITIGNORE: &str = include_str!("templates/gitignore");

// === impl Template ===

impl Template {
    /// The files of a new package.
    pub fn files(self, values: &Values<'_>) -> Vec<File> {
        let texts: &[(&'static str, &str)] = match self {
            Self::Passthrough => &[
                ("wick.toml", include_str!("templates/passthrough/wick.toml")),
                ("README.md", include_str!("templates/passthrough/README.md")),
            ],
            Self::Handler => &[
                ("wick.toml", include_str!("templates/handler/wick.toml")),
                ("README.md", include_str!("templates/handler/README.md")),
                ("Cargo.toml", include_str!("templates/handler/Cargo.toml.in")),
                ("src/lib.rs", include_str!("templates/handler/lib.rs")),
                (".gitignore", GITIGNORE),
            ],
            Self::Http => &[
                ("wick.toml", include_str!("templates/http/wick.toml")),
                ("README.md", include_str!("templates/http/README.md")),
                ("Cargo.toml", include_str!("templates/http/Cargo.toml.in")),
                ("src/lib.rs", include_str!("templates/http/lib.rs")),
                ("wit/wasi-nn.wit", WASI_NN),
                (".gitignore", GITIGNORE),
            ],
        };
        let filled = texts.iter().map(|(path, text)| File { path, content: fill(text, values) });
        filled.chain([File { path: "model.onnx", content: MODEL.to_vec() }]).collect()
    }

    /// What to type after `cd DIR`.
    pub fn next_steps(self) -> &'static [&'static str] {
        match self {
            Self::Passthrough => &["wick run ."],
            Self::Handler => &[
                "rustup target add wasm32-wasip2",
                "cargo test",
                "cargo build --release --target wasm32-wasip2",
                "wick run . --watch",
            ],
            Self::Http => &[
                "rustup target add wasm32-wasip2",
                "cargo build --release --target wasm32-wasip2",
                "wick run . --watch",
            ],
        }
    }
}

fn fill(text: &str, values: &Values<'_>) -> Vec<u8> {
    let guest = match values.sdk {
        // A debug string has the escapes of a TOML one, for any path.
        Some(sdk) => format!("wick-guest = {{ path = {:?} }}", sdk.display().to_string()),
        None => format!("wick-guest = \"{}\"", env!("CARGO_PKG_VERSION")),
    };
    text.replace("{{name}}", values.name).replace("{{wick_guest}}", &guest).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_manifest_is_right_and_no_placeholder_is_left() {
        for template in [Template::Passthrough, Template::Handler, Template::Http] {
            for sdk in [None, Some(Path::new("/a \"b\"/guest"))] {
                for file in template.files(&Values { name: "my-model", sdk }) {
                    if file.path == "model.onnx" {
                        continue;
                    }
                    let text = String::from_utf8(file.content).unwrap();
                    assert!(!text.contains("{{"), "{template:?} {}: {text}", file.path);
                    if file.path == "wick.toml" {
                        wick_package::parse(&text, Path::new("wick.toml")).unwrap();
                    }
                }
            }
        }
    }
}
