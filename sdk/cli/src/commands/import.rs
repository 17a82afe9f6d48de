//! `wick import`: a package from a model that is elsewhere.

use std::path::PathBuf;

use serde_json::json;
use wick_import::{ImportError, Imported, MlflowSettings, Settings, Source};
use wick_package::{Digest, PackageName, TensorSpec};
use wick_registry::Lease;

use crate::failure::{Failure, Outcome};
use crate::output::{self, Format};
use crate::quantity;
use crate::registries::{self, Bar, ImageArgs};

/// Make a package from a model that is elsewhere
///
/// SOURCE is an ONNX file or a folder with one; a snapshot in Hugging Face's cache; an OCI layout
/// with a ModelPack or KitOps artifact; models:/NAME/VERSION or models:/NAME@ALIAS of an MLflow
/// registry; oci:// and an artifact's name in an OCI registry; s3://, gs://, az:// or abfss://; or
/// http(s)://. Inputs and outputs are read from the
/// model. What is not ONNX is refused with the tool that converts it.
#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// Where the model is
    #[arg(value_name = "SOURCE")]
    source: String,
    /// The folder to make; the package's name otherwise
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The package's name, if not the source's
    #[arg(long)]
    name: Option<PackageName>,
    /// The package's version, if not the source's
    #[arg(long, value_name = "X.Y.Z")]
    version: Option<semver::Version>,
    /// Which file of the source is the model, if there are several
    #[arg(long, value_name = "PATH")]
    model: Option<String>,
    /// Which artifact of an OCI layout, by tag or digest, if there are several
    #[arg(long, value_name = "TAG|DIGEST")]
    reference: Option<String>,
    /// What the model's file must be: 64 hex digits
    #[arg(long, value_name = "HEX", value_parser = digest)]
    sha256: Option<Digest>,
    /// Largest file that is taken
    #[arg(long, value_name = "SIZE", value_parser = quantity::size, default_value = "64GiB")]
    max_size: u64,
    /// Follow links out of the folder that was named
    #[arg(long)]
    follow_links: bool,
    /// Link to the source's file instead of copying it, where the file system can
    #[arg(long)]
    hard_link: bool,
    /// MLflow's tracking server; MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and
    /// MLFLOW_TRACKING_PASSWORD, say who asks
    #[arg(long, value_name = "URL", env = "MLFLOW_TRACKING_URI")]
    tracking_uri: Option<String>,
    /// Authorities whose servers are trusted instead of the system's (PEM)
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// Say what would be made; nothing is fetched but lists and first bytes
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    images: ImageArgs,
}

pub fn run(args: &ImportArgs, format: Format) -> Outcome {
    let source = Source::parse(&args.source).map_err(|error| failure(&error))?;
    // Garbage collection stays away from an artifact until its files are in the package.
    let (source, _lease) = match source {
        Source::Oci(name) => {
            pull(args, &name, format).map(|(source, lease)| (source, Some(lease)))?
        }
        here => (here, None),
    };
    let settings = settings(args);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(anyhow::Error::new)?;
    let bar = output::progress(
        format,
        Some(0),
        "importing {msg} [{bar:32}] {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}",
    );
    let imported = runtime.block_on(wick_import::import(&source, &settings, &mut |progress| {
        // Until a server tells how much it is, the bar is full.
        bar.set_length(progress.total.unwrap_or(progress.done));
        bar.set_position(progress.done);
        if bar.message() != progress.file {
            bar.set_message(progress.file.to_owned());
            // What an earlier run has fetched says nothing of the speed.
            bar.reset_eta();
        }
    }));
    bar.finish_and_clear();
    let imported = imported.map_err(|error| failure(&error))?;
    report(&imported, format);
    Ok(())
}

/// Have an artifact of a registry in the store.
fn pull(args: &ImportArgs, name: &str, format: Format) -> Outcome<(Source, Lease)> {
    if let Some(out) = &args.out {
        // Before anything is pulled.
        wick_import::check_free(out).map_err(|error| failure(&error))?;
    }
    if args.dry_run {
        return Err(Failure::usage("a dry run pulls nothing, and so can't tell what is in it")
            .help("look at it with `wick inspect`, or import it without --dry-run"));
    }
    let reference = registries::reference(name)?;
    let (registry, store) = (args.images.registry()?, args.images.store()?);
    let bar = Bar::new(format, &reference);
    let pulled = registries::block_on(async {
        let pulled = registry.pull(&reference, &store, bar.clone()).await;
        pulled.map_err(|error| Failure::of(&error))
    });
    bar.done();
    let image = pulled?.image;
    let lease = store.lease().and_then(|lease| lease.protect_image(&image).map(|()| lease));
    let lease = lease.map_err(|error| Failure::stored(&error))?;
    let (root, origin) = (store.root().to_owned(), format!("oci://{name}"));
    Ok((Source::Layout { root, digest: image.digest, origin }, lease))
}

fn settings(args: &ImportArgs) -> Settings {
    let variable = |name: &str| std::env::var(name).ok();
    let mlflow = MlflowSettings {
        tracking_uri: args.tracking_uri.clone(),
        ..MlflowSettings::from_env(variable)
    };
    Settings {
        out: args.out.clone(),
        name: args.name.clone(),
        version: args.version.clone(),
        model: args.model.clone(),
        sha256: args.sha256,
        reference: args.reference.clone(),
        max_size: args.max_size,
        follow_links: args.follow_links,
        hard_link: args.hard_link,
        dry_run: args.dry_run,
        cacert: args.cacert.clone(),
        mlflow,
    }
}

fn failure(error: &ImportError) -> Failure {
    let mut failure = Failure::of(error);
    if let Some(help) = error.help() {
        failure = failure.help(help);
    }
    failure
}

fn report(imported: &Imported, format: Format) {
    let path = imported.path.display().to_string();
    let next = [format!("wick run {path}"), format!("wick pack {path}")];
    if format == Format::Json {
        let mut json = serde_json::to_value(imported).unwrap_or_default();
        if !imported.dry_run {
            json["next"] = json!(next);
        }
        output::json(&json);
        return;
    }
    let done = if imported.dry_run { "would import" } else { "imported" };
    let Imported { name, version, origin, model, .. } = imported;
    let size = imported.size.map_or_else(String::new, |size| format!(", {}", output::size(size)));
    output::line(format_args!("{done} {name} {version} into {path} ({model}{size})"));
    if let Some(signature) = &imported.signature {
        for (side, specs) in [("input", &signature.inputs), ("output", &signature.outputs)] {
            for spec in specs.iter().flatten() {
                output::line(format_args!("  {side:<6} {}", tensor(spec)));
            }
        }
    }
    eprintln!("from {origin}");
    for note in &imported.notes {
        eprintln!("{} {note}", output::cyan("note:"));
    }
    if !imported.dry_run {
        eprintln!("next:\n  {}\n  {}", next[0], next[1]);
    }
}

fn tensor(spec: &TensorSpec) -> String {
    format!("{} {} {}", spec.name, spec.datatype, spec.shape_text())
}

/// 64 hex digits, as `sha256sum` prints them, or with the algorithm before them.
fn digest(text: &str) -> Result<Digest, String> {
    let hex = text.trim().trim_start_matches("sha256:").to_ascii_lowercase();
    format!("sha256:{hex}").parse().map_err(|_| "write the 64 hex digits of `sha256sum`".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_taken_as_sha256sum_prints_it() {
        let hex = Digest::of(b"wick").hex();
        assert_eq!(digest(&hex), Ok(Digest::of(b"wick")));
        assert_eq!(digest(&format!("sha256:{}", hex.to_uppercase())), Ok(Digest::of(b"wick")));
        assert!(digest("abc").is_err());
    }
}
