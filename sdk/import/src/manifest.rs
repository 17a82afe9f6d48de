//! The text of a `wick.toml` for one graph without a handler. Pure.

use std::fmt::Write as _;

use semver::Version;
use toml::Value;
use wick_package::{PackageName, RelPath, TensorSpec};

use crate::onnx::Declared;

/// Longest description of a manifest, in bytes; the parser's own limit.
const MAX_DESCRIPTION: usize = 512;

/// What a manifest is written from.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    pub name: PackageName,
    pub version: Version,
    /// Any text; its first line is taken.
    pub description: Option<String>,
    /// Where the model is from, for people.
    pub origin: String,
    /// The model's file in the package.
    pub model: RelPath,
    pub inputs: Vec<Declared>,
    pub outputs: Vec<Declared>,
}

// === impl Draft ===

impl Draft {
    /// The manifest's text.
    pub fn text(&self) -> String {
        let mut text = String::from("# Every key: docs/wick-toml.md of wick.\n[package]\n");
        let mut line = |line: String| text.extend([line.as_str(), "\n"]);
        line(format!("name = {}", quoted(self.name.as_str())));
        line(format!("version = {}", quoted(&self.version.to_string())));
        if let Some(description) = self.description.as_deref().and_then(one_line) {
            line(format!("description = {}", quoted(&description)));
        }
        line(format!("\n# Imported from {}", comment(&self.origin)));
        line("[[graph]]\nname = \"model\"".to_owned());
        line(format!("path = {}", quoted(self.model.as_str())));
        line(
            "devices = [\"cpu\"]                    # the whole permission, best first".to_owned(),
        );
        line("# batch = { max = 16, delay = \"2ms\" }  # join requests".to_owned());
        sections(&mut text, "input", &self.inputs);
        sections(&mut text, "output", &self.outputs);
        text
    }
}

/// The sections of one side; all or none, since the runtime takes what is missing from the graph
/// only if nothing of that side is written.
fn sections(text: &mut String, key: &str, all: &[Declared]) {
    let specs: Option<Vec<TensorSpec>> = all.iter().map(Declared::spec).collect();
    let Some(specs) = specs else {
        // Writing to a string can't fail.
        _ = write!(text, "\n# No [[{key}]]: the model does not tell all shapes of its {key}s.\n");
        return;
    };
    for spec in specs {
        _ = write!(
            text,
            "\n[[{key}]]\nname = {}\ndatatype = \"{}\"\nshape = {}\n",
            quoted(&spec.name),
            spec.datatype,
            spec.shape_text()
        );
    }
}

/// A TOML string.
fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

/// A comment ends with its line.
fn comment(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// The first line of a text, bounded; none of an empty text.
fn one_line(text: &str) -> Option<String> {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
    let mut line = comment(line);
    let mut end = line.len().min(MAX_DESCRIPTION);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line.truncate(end);
    Some(line.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;
    use wick_package::{Datatype, Dim};

    use super::*;

    fn declared(name: &str, shape: Option<Vec<Dim>>) -> Declared {
        Declared { name: name.to_owned(), datatype: Datatype::Fp32, shape }
    }

    fn draft(inputs: Vec<Declared>, outputs: Vec<Declared>) -> Draft {
        Draft {
            name: "m".parse().unwrap(),
            version: Version::new(1, 2, 3),
            description: Some("\n A model\nwith more".to_owned()),
            origin: "s3://bucket/m.onnx\nevil = true".to_owned(),
            model: "model.onnx".parse().unwrap(),
            inputs,
            outputs,
        }
    }

    #[test]
    fn the_manifest_says_what_the_graph_says() {
        let shape = Some(vec![Dim::Any, Dim::Fixed(3)]);
        let text = draft(vec![declared("x", shape)], vec![declared("y", Some(vec![]))]).text();
        let manifest = wick_package::parse(&text, Path::new("wick.toml")).unwrap();
        assert_eq!(manifest.description.as_deref(), Some("A model"));
        assert_eq!(manifest.graphs[0].path.as_str(), "model.onnx");
        assert_eq!(manifest.inputs[0].shape_text(), "[-1, 3]");
        assert_eq!(manifest.outputs[0].shape_text(), "[]");
    }

    #[test]
    fn a_side_with_an_unknown_shape_is_left_to_the_graph() {
        let unknown = vec![declared("a", Some(vec![Dim::Any])), declared("b", None)];
        let text = draft(unknown, vec![declared("y", Some(vec![]))]).text();
        let manifest = wick_package::parse(&text, Path::new("wick.toml")).unwrap();
        assert!(manifest.inputs.is_empty());
        assert_eq!(manifest.outputs.len(), 1);
        assert!(text.contains("# No [[input]]"), "{text}");
    }

    proptest! {
        #[test]
        fn any_tensor_name_that_a_manifest_may_have_survives(name in "[^\\p{Cc}]{1,60}") {
            let inputs = vec![declared(&name, Some(vec![Dim::Fixed(1)]))];
            let text = draft(inputs, vec![declared("y", None)]).text();
            let manifest = wick_package::parse(&text, Path::new("wick.toml")).unwrap();
            prop_assert_eq!(&manifest.inputs[0].name, &name);
        }

        #[test]
        fn any_description_and_origin_give_a_manifest(description: String, origin: String) {
            let draft = Draft { description: Some(description), origin, ..draft(vec![], vec![]) };
            let parsed = wick_package::parse(&draft.text(), Path::new("wick.toml"));
            prop_assert!(parsed.is_ok(), "{}", draft.text());
        }
    }
}
