//! Turns Magika's JSON into constants, so that no request parses or builds a table.

use std::collections::BTreeMap;
use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=WICK_MODELS");
    let folder = models().join("magika");
    let files = ["config.min.json", "content_types_kb.min.json"].map(|name| folder.join(name));
    for file in &files {
        println!("cargo::rerun-if-changed={}", file.display());
    }
    let code = if files.iter().all(|file| file.is_file()) {
        tables(&read(&files[0])?, &read(&files[1])?)?
    } else {
        // A fresh clone must compile; the guest then says what is missing.
        println!(
            "cargo::warning=magika: {} is not there; run `cargo xtask setup`, or set \
             WICK_MODELS, and build again",
            files[0].display()
        );
        "pub static TYPES: &[FileType] = &[];\n".to_owned()
    };
    fs::write(Path::new(&env::var("OUT_DIR")?).join("types.rs"), code)?;
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

fn read(path: &Path) -> Result<Value, Box<dyn Error>> {
    let text = fs::read_to_string(path)?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()).into())
}

/// One entry for each class of the model, in the model's order: what the class means
/// once the configuration's overwrite map and thresholds are applied.
fn tables(config: &Value, kinds: &Value) -> Result<String, Box<dyn Error>> {
    // The constants in src/features.rs are those of this version; another one needs a look.
    let expected = BTreeMap::from([
        ("beg_size", 1024),
        ("mid_size", 0),
        ("end_size", 1024),
        ("padding_token", 256),
        ("block_size", 4096),
        ("min_file_size_for_dl", 8),
    ]);
    for (key, value) in expected {
        if config[key] != value {
            return Err(format!("magika's {key} is {}, expected {value}", config[key]).into());
        }
    }
    let labels = config["target_labels_space"].as_array().ok_or("no target_labels_space")?;
    let mut code = "pub static TYPES: &[FileType] = &[\n".to_owned();
    for label in labels {
        let label = label.as_str().ok_or("a label is no string")?;
        let threshold = config["thresholds"].get(label);
        let threshold = threshold.unwrap_or_else(|| &config["medium_confidence_threshold"]);
        let threshold = threshold.as_f64().ok_or("a threshold is no number")?;
        let output = config["overwrite_map"].get(label).and_then(Value::as_str).unwrap_or(label);
        let kind = kinds.get(output).ok_or_else(|| format!("nothing is known of {output}"))?;
        let text = kind["is_text"].as_bool().ok_or("is_text is no boolean")?;
        // As Magika itself does where its table leaves the MIME type out.
        let general = if text { "text/plain" } else { "application/octet-stream" };
        let mime = kind["mime_type"].as_str().unwrap_or(general);
        writeln!(
            code,
            "    FileType {{ label: {output:?}, mime: {mime:?}, text: {text}, \
             threshold: {threshold:?} }},"
        )?;
    }
    code.push_str("];\n");
    Ok(code)
}
