//! The files of a policy in a folder, for a dry run.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};

/// Largest file of a policy, as the hub reads it.
const MAX_FILE: u64 = 1 << 20;

/// What the hub would read of a checkout.
pub fn read(folder: &Path) -> Outcome<Vec<Value>> {
    let mut files = Vec::new();
    for part in ["sites", "rollouts"] {
        let Ok(entries) = fs::read_dir(folder.join(part)) else { continue };
        for entry in entries {
            let path = entry.with_context(|| format!("cannot read {part}"))?.path();
            let yaml = path.extension().is_some_and(|name| name == "yaml" || name == "yml");
            let Some(name) = path.file_name().filter(|_| yaml) else { continue };
            let shown = format!("{part}/{}", name.to_string_lossy());
            let size = path.metadata().with_context(|| format!("cannot read {shown}"))?.len();
            if size > MAX_FILE {
                let text = format!("{shown} is larger than {MAX_FILE} bytes");
                return Err(Failure::new(Exit::BadData, "bad-policy", text));
            }
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {shown}"))?;
            files.push(json!({"path": shown, "text": text}));
        }
    }
    if files.is_empty() {
        let text = format!("{} has no file in `sites` or `rollouts`", folder.display());
        return Err(Failure::new(Exit::NotFound, "no-policy", text));
    }
    Ok(files)
}

/// Whether the hub would take them, which is the command's result.
pub fn verdict(dry: &Value) -> Outcome {
    let count = |name: &str| dry[name].as_array().map_or(0, Vec::len);
    match count("mistakes") + count("problems") {
        0 => Ok(()),
        found => {
            let text = format!("the hub would not take this policy: {found} mistakes");
            Err(Failure::new(Exit::BadData, "bad-policy", text))
        }
    }
}
