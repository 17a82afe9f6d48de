//! Which file of a source is the model. Pure: names and sizes in, one name out.

use wick_package::RelPath;

/// Names of a model that is the one, best first, where there are several: Hugging Face's place,
/// then the usual ones.
const USUAL: [&str; 3] = ["model.onnx", "onnx/model.onnx", "data/model.onnx"];

/// Most names that an error lists.
const MAX_LISTED: usize = 12;

/// A file of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the source.
    pub path: RelPath,
    /// None where the source does not say.
    pub len: Option<u64>,
}

/// Why no file was chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChooseError {
    /// None of its files is called like an ONNX file.
    #[error("none of its {count} files is an ONNX file")]
    NoModel { count: usize },
    #[error("it has {count} ONNX files: {}", listed(names))]
    Several { count: usize, names: Vec<String> },
    #[error("it has no file `{wanted}`; its ONNX files are: {}", listed(names))]
    NotThere { wanted: String, names: Vec<String> },
}

/// Choose the model among `entries`: `wanted` if it was named, the only one, or the one with a
/// usual name.
///
/// # Errors
/// There is none, or several and none of them stands out.
pub fn choose<'a>(entries: &'a [Entry], wanted: Option<&str>) -> Result<&'a Entry, ChooseError> {
    let models: Vec<&Entry> = entries.iter().filter(|entry| is_onnx(&entry.path)).collect();
    let names = || models.iter().map(|entry| entry.path.to_string()).collect();
    if let Some(wanted) = wanted {
        let wanted = wanted.trim_start_matches("./");
        let found = entries.iter().find(|entry| entry.path.as_str() == wanted);
        let absent = || ChooseError::NotThere { wanted: wanted.to_owned(), names: names() };
        return found.ok_or_else(absent);
    }
    match models.as_slice() {
        [] if entries.len() == 1 => Ok(&entries[0]),
        [] => Err(ChooseError::NoModel { count: entries.len() }),
        [model] => Ok(model),
        _ => {
            let usual = USUAL.iter().find_map(|usual| {
                models.iter().find(|entry| entry.path.as_str().eq_ignore_ascii_case(usual))
            });
            let count = models.len();
            usual.copied().ok_or_else(|| ChooseError::Several { count, names: names() })
        }
    }
}

/// Whether a file is called like a model.
pub fn is_onnx(path: &RelPath) -> bool {
    let path = path.as_str();
    path.len() > 5 && path.is_char_boundary(path.len() - 5) && {
        path[path.len() - 5..].eq_ignore_ascii_case(".onnx")
    }
}

fn listed(names: &[String]) -> String {
    let mut text = names.iter().take(MAX_LISTED).cloned().collect::<Vec<_>>().join(", ");
    match names.len() {
        0 => text.push_str("none"),
        count if count > MAX_LISTED => text.push_str(&format!(" and {} more", count - MAX_LISTED)),
        _ => {}
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(paths: &[&str], wanted: Option<&str>) -> Result<String, String> {
        let entry = |path: &&str| Entry { path: path.parse().unwrap(), len: None };
        let entries: Vec<_> = paths.iter().map(entry).collect();
        let chosen = choose(&entries, wanted);
        chosen.map(|entry| entry.path.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_only_model_or_the_usual_one_is_chosen() {
        for (paths, model) in [
            (&["README.md", "net.onnx"][..], "net.onnx"),
            (&["a/NET.ONNX", "config.json"], "a/NET.ONNX"),
            (&["onnx/model.onnx", "onnx/model_fp16.onnx", "config.json"], "onnx/model.onnx"),
            (&["model.onnx", "onnx/model.onnx"], "model.onnx"),
            // A file that was named itself, whatever it is called.
            (&["weights.bin"], "weights.bin"),
        ] {
            assert_eq!(chosen(paths, None).as_deref(), Ok(model), "{paths:?}");
        }
    }

    #[test]
    fn several_models_need_a_choice() {
        let paths = ["det.onnx", "rec.onnx", "config.json"];
        let error = chosen(&paths, None).unwrap_err();
        assert!(error.contains("det.onnx, rec.onnx"), "{error}");
        assert_eq!(chosen(&paths, Some("./rec.onnx")).as_deref(), Ok("rec.onnx"));
        let error = chosen(&paths, Some("cls.onnx")).unwrap_err();
        assert!(error.contains("`cls.onnx`") && error.contains("det.onnx"), "{error}");
    }

    #[test]
    fn a_source_without_a_model_says_so() {
        assert!(chosen(&["a.pt", "b.json"], None).unwrap_err().contains("none of its 2 files"));
        assert!(chosen(&[], None).is_err());
    }

    #[test]
    fn long_lists_are_cut() {
        let names: Vec<_> = (0..20).map(|i| format!("m{i}.onnx")).collect();
        let paths: Vec<_> = names.iter().map(String::as_str).collect();
        assert!(chosen(&paths, None).unwrap_err().ends_with("and 8 more"));
    }
}
