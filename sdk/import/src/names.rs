//! A package's name and version from what a source calls itself. Pure: whatever the source says,
//! the result is a name that a package may have.

use semver::Version;
use wick_package::{MAX_NAME_LEN, PackageName};

/// Words that say what a file or folder is and not which model: the word before them is asked.
const GENERIC: &[&str] = &[
    "model",
    "models",
    "onnx",
    "weights",
    "saved-model",
    "snapshots",
    "blobs",
    "resolve",
    "blob",
    "raw",
    "main",
    "master",
    "latest",
    "download",
    "data",
    "artifacts",
    "artifact",
    "files",
    "export",
    "exported",
    "output",
    "outputs",
    "inference",
    "default",
    "v1",
    "v2",
    "1",
];

/// What a package is called whose source says nothing.
const FALLBACK: &str = "model";

/// Digits of a revision or digest that a folder is called by: no name for people.
const REVISION: usize = 16;

/// The version of a package whose source has none, as `wick new` begins.
const FIRST: Version = Version::new(0, 1, 0);

/// The best name among `words`, which go from the most specific to the least: the parts of a path
/// or URL from its end, for instance.
pub fn package_name<'a>(words: impl IntoIterator<Item = &'a str>) -> PackageName {
    let mut fallback = None;
    for word in words {
        let label = label(word);
        if label.is_empty() {
            continue;
        }
        let is_revision = label.len() >= REVISION && label.bytes().all(|b| b.is_ascii_hexdigit());
        // Exporters write `model_fp16` and the like beside each other.
        let is_generic = GENERIC.contains(&label.as_str()) || label.starts_with("model-");
        if !is_revision && !is_generic {
            return parse(&label);
        }
        if !is_revision {
            fallback.get_or_insert(label);
        }
    }
    parse(fallback.as_deref().unwrap_or(FALLBACK))
}

/// A version by what a source says: `7` is `7.0.0`, `v1.2` is `1.2.0`.
pub fn version(text: Option<&str>) -> Version {
    let Some(text) = text else { return FIRST };
    let text = text.trim().trim_start_matches(['v', 'V']);
    if let Ok(version) = text.parse() {
        return version;
    }
    let numbers: Option<Vec<u64>> = text.split('.').map(|part| part.parse().ok()).collect();
    match numbers.as_deref() {
        Some([major]) => Version::new(*major, 0, 0),
        Some([major, minor]) => Version::new(*major, *minor, 0),
        _ => FIRST,
    }
}

/// The last part of a Hugging Face cache folder's name, `models--ORG--NAME`.
pub fn of_cache_folder(folder: &str) -> Option<&str> {
    folder.strip_prefix("models--")?.rsplit("--").next().filter(|name| !name.is_empty())
}

/// A DNS label that reads like `word`, or nothing.
fn label(word: &str) -> String {
    let word = of_cache_folder(word).unwrap_or(word);
    let word = word.strip_suffix(".onnx").unwrap_or(word);
    let mut label = String::new();
    for letter in word.chars() {
        match letter.to_ascii_lowercase() {
            letter @ ('a'..='z' | '0'..='9') => label.push(letter),
            // Every run of anything else is one dash.
            _ if !label.is_empty() && !label.ends_with('-') => label.push('-'),
            _ => {}
        }
        if label.len() == MAX_NAME_LEN {
            break;
        }
    }
    label.truncate(label.trim_end_matches('-').len());
    label
}

fn parse(label: &str) -> PackageName {
    let name = label.parse().or_else(|_| FALLBACK.parse());
    name.expect("the fallback is a name, and a label is one by its making")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_come_from_the_most_specific_word_that_is_one() {
        for (words, name) in [
            (&["PP-OCRv6_det_small.onnx"][..], "pp-ocrv6-det-small"),
            (&["model.onnx", "onnx", "all-MiniLM-L6-v2"], "all-minilm-l6-v2"),
            (&["model.onnx", "main", "resolve", "bert_base.v2"], "bert-base-v2"),
            (&["model.onnx", "models--org--Tiny--BERT"], "bert"),
            (&["model.onnx", "0123456789abcdef0123456789abcdef01234567", "snapshots", "m"], "m"),
            (&["model.onnx"], "model"),
            (&["model_quantized.onnx", "onnx", "bert"], "bert"),
            (&["model_quantized.onnx"], "model-quantized"),
            (&["日本語", "…"], "model"),
            (&["0123456789abcdef0123456789abcdef"], "model"),
            (&[], "model"),
            (&["--a--", "b"], "a"),
        ] {
            assert_eq!(package_name(words.iter().copied()).as_str(), name, "{words:?}");
        }
    }

    #[test]
    fn versions_become_semantic_ones() {
        for (text, version) in [
            (Some("7"), "7.0.0"),
            (Some("v1.2"), "1.2.0"),
            (Some("1.2.3-rc.1"), "1.2.3-rc.1"),
            (Some("latest"), "0.1.0"),
            (Some("1.2.3.4"), "0.1.0"),
            (None, "0.1.0"),
        ] {
            assert_eq!(super::version(text).to_string(), version, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_words_give_a_name(words: Vec<String>) {
            package_name(words.iter().map(String::as_str));
        }

        #[test]
        fn any_text_gives_a_version(text: String) {
            version(Some(&text));
        }
    }
}
