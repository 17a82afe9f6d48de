//! `wick check`: every mistake of a package, before anything is served.

use std::path::PathBuf;

use serde_json::{Value, json};
use wick_engine::{Grants, GraphStatus, Model, ModelKind};
use wick_package::Package;
use wick_serve::{Repository, RepositoryError, RepositorySettings, Source};

use crate::failure::{Failure, Outcome};
use crate::host::{self, HostArgs};
use crate::output::{self, Format};
use crate::weights;

/// Report every mistake in a package
///
/// Reads wick.toml and looks for the files that it names. With --load, graphs and component
/// are loaded and warmed as for serving, and the devices in use are printed.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// A package directory, an OCI layout, or its tar
    #[arg(value_name = "PACKAGE", default_value = ".")]
    package: PathBuf,
    /// Load graphs and component, and run the warm-up
    #[arg(long)]
    load: bool,
    /// Hash every byte of a layout and compare with its digests
    #[arg(long)]
    verify: bool,
    #[command(flatten)]
    host: HostArgs,
}

pub fn run(args: &CheckArgs, format: Format) -> Outcome {
    let package = host::open(&args.package)?;
    weights::check_runnable(&package)?;
    if args.verify {
        package.verify().map_err(|error| Failure::open(&error))?;
    }
    let model = match args.load {
        true => {
            let host = args.host.host()?;
            Some(host::block_on(host.cpus, load(args, &host))?)
        }
        false => None,
    };
    report(&package, model.as_ref(), format);
    Ok(())
}

/// Load the package exactly as the server does, its own warm-up request included.
async fn load(args: &CheckArgs, host: &host::Host) -> Outcome<Model> {
    let settings = RepositorySettings { cpus: host.cpus, drain: std::time::Duration::ZERO };
    let repository = Repository::new(host.engine.clone(), settings);
    let repository = repository.map_err(|error| Failure::repository(&error))?;
    let source = Source { path: args.package.clone(), grants: Grants::default() };
    let name = repository.add(source).await.map_err(|error| Failure::repository(&error))?;
    match repository.load(&name).await {
        Ok(()) => match repository.peek(&name, None) {
            Ok(live) => Ok(live.model.clone()),
            Err(failure) => Err(Failure::new(crate::exit::Exit::Failure, "failed", failure)),
        },
        // A command is not warmed: it runs once.
        Err(RepositoryError::Command { .. }) => {
            let package = host::open(&args.package)?;
            let model = host.engine.load(package, Grants::default()).await;
            model.map_err(|error| Failure::of(&error))
        }
        Err(error) => Err(Failure::repository(&error)),
    }
}

fn report(package: &Package, model: Option<&Model>, format: Format) {
    let manifest = package.manifest();
    let graphs = model.map(Model::graphs);
    if format == Format::Json {
        let mut json = json!({
            "ok": true,
            "name": manifest.name,
            "version": manifest.version.to_string(),
            "loaded": model.is_some(),
        });
        if let Some(model) = model {
            json["kind"] = kind(model.kind()).into();
            json["graphs"] = serde_json::to_value(&graphs).unwrap_or(Value::Null);
        }
        output::json(&json);
        return;
    }
    let ok = output::green("ok:");
    output::line(format_args!("{ok} {} {}", manifest.name, manifest.version));
    for graph in graphs.iter().flatten() {
        output::line(format_args!("  {}", device(graph)));
    }
    if model.is_none() {
        eprintln!("manifest and files are right; --load tries graphs and component as well");
    }
}

/// The kind of a model, in one word.
pub fn kind(kind: ModelKind) -> &'static str {
    match kind {
        ModelKind::Passthrough => "passthrough",
        ModelKind::Handler => "handler",
        ModelKind::Http => "http",
        ModelKind::Command => "command",
    }
}

/// Where a graph runs, on one line.
pub fn device(graph: &GraphStatus) -> String {
    let used = &graph.device;
    let mut text = format!(
        "{} on {} by {} {}",
        graph.name, used.device.kind, used.backend, used.backend_version
    );
    if used.share < 1.0 {
        text.push_str(&format!(", {:.0} % of its nodes", used.share * 100.0));
    }
    if used.threads > 0 {
        let plural = if used.threads == 1 { "" } else { "s" };
        text.push_str(&format!(", {} thread{plural}", used.threads));
    }
    text
}
