//! What is said when everything is ready: a few lines for people on stderr, or one line
//! of JSON on stdout.

use serde_json::{Value, json};
use wick_engine::{Model, ModelKind};
use wick_package::{Datatype, TensorSpec};
use wick_serve::Repository;

use crate::commands::check;
use crate::output::{self, Format};

pub fn print(url: &str, repository: &Repository, watch: bool, format: Format) {
    let models: Vec<_> = repository
        .names()
        .iter()
        .flat_map(|name| repository.versions(name))
        .map(|live| live.model.clone())
        .collect();
    match format {
        Format::Json => output::json(&json!({
            "ready": repository.is_ready(),
            "url": url,
            "pid": std::process::id(),
            "models": models.iter().map(to_json).collect::<Vec<_>>(),
        })),
        Format::Human | Format::Raw => eprint!("{}", to_text(url, &models, watch)),
    }
}

fn to_json(model: &Model) -> Value {
    json!({
        "name": model.manifest().name,
        "version": model.manifest().version.to_string(),
        "kind": check::kind(model.kind()),
        "graphs": model.graphs(),
    })
}

fn to_text(url: &str, models: &[Model], watch: bool) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let mut text = format!("\n{} {version} serves {}\n\n", output::bold("wick"), output::cyan(url));
    for model in models {
        let manifest = model.manifest();
        let kind = check::kind(model.kind());
        text.push_str(&format!("  {} {} ({kind})\n", manifest.name, manifest.version));
        for graph in model.graphs() {
            text.push_str(&format!("    {}\n", check::device(&graph)));
        }
    }
    if let Some(model) = models.first() {
        text.push_str(&format!("\n  try   {}\n", example(url, model)));
    }
    let also = if watch { "; packages are loaded again when they change" } else { "" };
    text.push_str(&format!("  stop  Ctrl-C{also}\n\n"));
    text
}

/// A command that calls the model.
fn example(url: &str, model: &Model) -> String {
    let name = model.manifest().name.as_str();
    match model.kind() {
        ModelKind::Http => format!("curl -i {url}/"),
        _ => {
            let inputs = model.inputs().iter().map(example_input);
            let inputs: Vec<_> = inputs.collect();
            format!("wick infer {url} {name}{}", inputs.concat())
        }
    }
}

fn example_input(spec: &TensorSpec) -> String {
    let is_file = spec.datatype == Datatype::Bytes
        || (spec.datatype == Datatype::Uint8 && spec.shape.len() == 1);
    let value = match (is_file, spec.shape.len()) {
        (true, _) => "@FILE",
        (false, 3 | 4) => "@PICTURE",
        (false, _) => "'[…]'",
    };
    format!(" -i {}={value}", spec.name)
}

#[cfg(test)]
mod tests {
    use wick_package::Dim;

    use super::*;

    #[test]
    fn examples_fit_the_inputs() {
        let spec =
            |datatype, rank| TensorSpec { name: "x".into(), datatype, shape: vec![Dim::Any; rank] };
        assert_eq!(example_input(&spec(Datatype::Uint8, 1)), " -i x=@FILE");
        assert_eq!(example_input(&spec(Datatype::Fp32, 4)), " -i x=@PICTURE");
        assert_eq!(example_input(&spec(Datatype::Int64, 2)), " -i x='[…]'");
    }
}
