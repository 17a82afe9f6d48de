//! `wick pack`: a package as an OCI image.

use std::path::{Path, PathBuf};

use serde_json::json;
use wick_nn::providers;
use wick_package::pack::{self, Options, Packed};
use wick_package::{ImageRef, Package};

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::host;
use crate::output::{self, Format};
use crate::weights;

/// Pack a package into an OCI image
///
/// The same files always give the same digest. containerd imports the result, and `wick run`
/// takes it as it is.
#[derive(Debug, clap::Args)]
pub struct PackArgs {
    /// A package directory
    #[arg(value_name = "PACKAGE", default_value = ".")]
    package: PathBuf,
    /// What to write; NAME-VERSION.tar, or NAME-VERSION as a folder, otherwise
    #[arg(short, long, value_name = "OUT")]
    out: Option<PathBuf>,
    /// A tar or a folder; by the name of OUT otherwise
    #[arg(long, value_enum)]
    format: Option<Kind>,
    /// The image's name; docker.io/library/NAME:VERSION otherwise
    #[arg(long = "name", value_name = "REFERENCE")]
    reference: Option<ImageRef>,
    /// Say what would be written
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    Tar,
    Folder,
}

pub fn run(args: &PackArgs, format: Format) -> Outcome {
    let package = host::open(&args.package)?;
    weights::check_packable(&package)?;
    for graph in &package.manifest().graphs {
        providers::check(graph).map_err(|why| Failure::new(Exit::BadData, "graph-options", why))?;
    }
    let (out, kind) = destination(args, &package);
    if args.dry_run {
        plan(args, &package, &out, format);
        return Ok(());
    }
    let options = Options {
        format: match kind {
            Kind::Tar => pack::Format::Tar,
            Kind::Folder => pack::Format::Folder,
        },
        reference: args.reference.clone(),
    };
    let bar = output::progress(format, Some(0), "packing [{bar:32}] {bytes}/{total_bytes} {msg}");
    let packed = pack::write_layout(&package, &out, &options, &mut |progress| {
        bar.set_length(progress.total);
        bar.set_position(progress.done);
        bar.set_message(progress.file.to_owned());
    });
    bar.finish_and_clear();
    let packed = packed.map_err(|error| Failure::of(&error))?;
    report(&packed, &out, format);
    Ok(())
}

fn destination(args: &PackArgs, package: &Package) -> (PathBuf, Kind) {
    let is_tar = |path: &Path| path.extension().is_some_and(|extension| extension == "tar");
    let kind = match (args.format, &args.out) {
        (Some(kind), _) => kind,
        (None, Some(out)) if !is_tar(out) => Kind::Folder,
        (None, _) => Kind::Tar,
    };
    let manifest = package.manifest();
    let own = || {
        let stem = format!("{}-{}", manifest.name, manifest.version);
        PathBuf::from(if kind == Kind::Tar { format!("{stem}.tar") } else { stem })
    };
    (args.out.clone().unwrap_or_else(own), kind)
}

fn report(packed: &Packed, out: &Path, format: Format) {
    if format == Format::Json {
        let mut json = serde_json::to_value(packed).unwrap_or_default();
        json["path"] = out.display().to_string().into();
        output::json(&json);
        return;
    }
    let bytes: u64 = packed.layers.iter().map(|layer| layer.size).sum();
    output::line(packed.digest);
    eprintln!(
        "packed {} into {} ({} in {} layers)",
        packed.reference,
        out.display(),
        output::size(bytes),
        packed.layers.len()
    );
    eprintln!("next:\n  wick run {}", out.display());
    if out.extension().is_some_and(|extension| extension == "tar") {
        eprintln!("  ctr -n k8s.io images import {}", out.display());
    }
}

fn plan(args: &PackArgs, package: &Package, out: &Path, format: Format) {
    let reference = args.reference.clone().unwrap_or_else(|| ImageRef::of(package.manifest()));
    let reference = reference.or_tag(package.manifest()).to_string();
    let layers = package.layers();
    if format == Format::Json {
        output::json(&json!({
            "dry_run": true, "reference": reference, "path": out, "layers": layers,
        }));
        return;
    }
    output::line(format_args!("would pack {reference} into {}", out.display()));
    for layer in layers {
        output::line(format_args!("  {}: {}", output::size(layer.size), layer.files.join(", ")));
    }
    // Where it stands matters: a later run must be able to write there.
    if out.exists() {
        eprintln!("{} exists; a layout there would be replaced", out.display());
    }
}
