//! `wick operator`: what a cluster needs for Models, and what it would make of one.

pub mod run;

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::{Value, json};
use wick_api::{Mistake, Model};
use wick_operator::desired::{self, Target, Wanted};
use wick_operator::revision::Revision;
use wick_package::{Digest, Reference};

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::{self, Format};

/// Largest file of Models. An API server takes 3 MiB of one.
const MAX_FILE: u64 = 4 << 20;

/// Models on Kubernetes: their definition, and the objects that they become
#[derive(Debug, clap::Args)]
pub struct OperatorArgs {
    #[command(subcommand)]
    command: OperatorCommand,
}

#[derive(Debug, clap::Subcommand)]
enum OperatorCommand {
    /// Print the definition of `Model`, for `kubectl apply -f -`
    Crd,
    /// Check Models and print the objects that they become, without a cluster
    ///
    /// Fields are checked as the API server checks them, all at once. The objects have no owner,
    /// which only a cluster gives them, and their EndpointSlices are empty.
    Render(RenderArgs),
    /// Act on Models: start and stop pods, lead requests, roll out
    Run(run::RunArgs),
}

// === impl OperatorArgs ===

impl OperatorArgs {
    /// Whether it runs on and says what it does.
    pub fn serves(&self) -> bool {
        matches!(self.command, OperatorCommand::Run(_))
    }
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wick operator crd | kubectl apply -f -
  wick operator render -f model.yaml
  wick operator render -f model.yaml --digest sha256:… --output json | jq '.items[].kind'")]
struct RenderArgs {
    /// YAML or JSON with one Model or several; `-` for standard input
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// What the image's tag stands for, which the controller asks the registry for
    #[arg(long, value_name = "DIGEST")]
    digest: Option<Digest>,
}

pub fn run(args: &OperatorArgs, format: Format) -> Outcome {
    match &args.command {
        OperatorCommand::Crd => print(&wick_api::crd(), format),
        OperatorCommand::Render(args) => render(args, format),
        OperatorCommand::Run(args) => run::run(args),
    }
}

fn render(args: &RenderArgs, format: Format) -> Outcome {
    let models = models(&args.file)?;
    if args.digest.is_some() && models.len() > 1 {
        let message = format!("--digest is of one image, and there are {} Models", models.len());
        return Err(Failure::usage(message).help("write their images with their digests"));
    }
    let mut objects = Vec::new();
    for model in &models {
        let revision = revision(model, args.digest).map_err(|failure| failure.about(&args.file))?;
        let target = Target::Pods(Vec::new());
        let current = [revision.name.clone()];
        let wanted = Wanted { model, revisions: &[revision], current: &current, target: &target };
        objects.extend(desired::objects(&wanted).iter().map(desired::Object::to_value));
    }
    if format == Format::Json {
        output::json(&json!({"apiVersion": "v1", "kind": "List", "items": objects}));
        return Ok(());
    }
    for object in &objects {
        output::line("---");
        print(object, format)?;
    }
    Ok(())
}

/// The revision that a Model asks for.
fn revision(model: &Model, digest: Option<Digest>) -> Outcome<Revision> {
    let image = &model.spec.package.image;
    let wrong = |error: &dyn std::fmt::Display| {
        let path = "spec.package.image".to_owned();
        refused(&[(1, Mistake { path, what: error.to_string() })])
    };
    let reference: Reference = image.parse().map_err(|error| wrong(&error))?;
    let digest = match (reference.digest(), digest) {
        (Some(written), Some(given)) if written != given => {
            return Err(Failure::usage(format!("--digest differs from that of `{image}`")));
        }
        (Some(digest), _) | (None, Some(digest)) => digest,
        (None, None) => {
            let what = format!("`{image}` is a tag, and only a registry knows its digest");
            return Err(
                wrong(&what).help("give the digest with --digest, or write it in the image")
            );
        }
    };
    let name = model.metadata.name.as_deref().unwrap_or_default();
    Revision::new(name, &model.spec, digest).map_err(|error| wrong(&error))
}

/// The Models of a file, or every mistake in them.
fn models(path: &Path) -> Outcome<Vec<Model>> {
    let text = read(path)?;
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).map_err(|error| {
        Failure::new(Exit::BadData, "bad-model", error).about(path).help("it must be YAML or JSON")
    })?;
    let documents = documents.into_iter().filter(|document| !document.is_null());
    let (mut models, mut mistakes) = (Vec::new(), Vec::new());
    for (number, document) in (1..).zip(documents) {
        match wick_api::parse(document) {
            Ok(model) => models.push(model),
            Err(found) => mistakes.extend(found.into_iter().map(|mistake| (number, mistake))),
        }
    }
    match (mistakes.is_empty(), models.is_empty()) {
        (false, _) => Err(refused(&mistakes).about(path)),
        (true, true) => {
            Err(Failure::new(Exit::BadData, "bad-model", "has no Model in it").about(path))
        }
        (true, false) => Ok(models),
    }
}

/// All mistakes in one failure. The number of the document is told where there are several.
fn refused(mistakes: &[(usize, Mistake)]) -> Failure {
    let one = |(number, mistake): &(usize, Mistake)| match number {
        1 => mistake.to_string(),
        _ => format!("document {number}: {mistake}"),
    };
    let message = match mistakes {
        [mistake] => one(mistake),
        _ => {
            let lines = mistakes.iter().map(|mistake| format!("\n  {}", one(mistake)));
            format!("{} mistakes:{}", mistakes.len(), lines.collect::<String>())
        }
    };
    let list = mistakes.iter().map(
        |(number, mistake)| json!({"document": number, "path": mistake.path, "what": mistake.what}),
    );
    Failure::new(Exit::BadData, "bad-model", message)
        .detail("mistakes", list.collect())
        .help("docs/model.md has every field; `kubectl explain model.spec` too")
}

fn read(path: &Path) -> Outcome<String> {
    let shown = path.display();
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(MAX_FILE + 1).read_to_string(&mut text)
    } else {
        let file = fs::File::open(path);
        file.and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut text))
    };
    read.with_context(|| format!("cannot read {shown}"))?;
    if text.len() as u64 > MAX_FILE {
        let message = format!("{shown}: is larger than {MAX_FILE} bytes");
        return Err(Failure::new(Exit::BadData, "bad-model", message));
    }
    Ok(text)
}

pub(super) fn print(object: &impl serde::Serialize, format: Format) -> Outcome {
    if format == Format::Json {
        output::json(object);
        return Ok(());
    }
    let text = serde_saphyr::to_string(object).context("write YAML")?;
    output::line(text.trim_end());
    Ok(())
}
