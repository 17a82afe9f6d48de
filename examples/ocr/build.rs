//! Turns the recogniser's dictionary into a constant, so that no request splits it.

use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=WICK_MODELS");
    let file = models().join("ppocr/dict.txt");
    println!("cargo::rerun-if-changed={}", file.display());
    let characters = if file.is_file() {
        read(&file)?
    } else {
        // A fresh clone must compile; the handler then says what is missing.
        println!(
            "cargo::warning=ocr: {} is not there; run `cargo xtask setup`, or set WICK_MODELS, \
             and build again",
            file.display()
        );
        Vec::new()
    };
    let mut code = "pub(crate) static CHARACTERS: &[char] = &[".to_owned();
    for character in characters {
        write!(code, "{character:?},")?;
    }
    code.push_str("];\n");
    fs::write(Path::new(&env::var("OUT_DIR")?).join("characters.rs"), code)?;
    Ok(())
}

/// Where `cargo xtask models` puts them.
fn models() -> PathBuf {
    if let Some(folder) = env::var_os("WICK_MODELS") {
        return folder.into();
    }
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| env::home_dir().map(|home| home.join(".cache")));
    cache.unwrap_or_default().join("wick/models")
}

/// One character a line.
fn read(path: &Path) -> Result<Vec<char>, Box<dyn Error>> {
    let text = fs::read_to_string(path)?;
    let character = |(number, line): (usize, &str)| {
        let mut characters = line.chars();
        match (characters.next(), characters.next()) {
            (Some(character), None) => Ok(character),
            _ => Err(format!("{}:{}: not one character", path.display(), number + 1).into()),
        }
    };
    text.lines().enumerate().map(character).collect()
}
