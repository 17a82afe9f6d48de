//! `wick push`: a package or an image of the store, to a registry.

use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use wick_package::pack::{self, Options};
use wick_package::{MANIFEST_FILE, Reference};
use wick_registry::{Progress, Pushed, Registry, Store};

use crate::failure::{Failure, Outcome};
use crate::host;
use crate::output::{self, Format};
use crate::registries::{self, Bar, ImageArgs};
use crate::weights;

/// Push a package to a registry
///
/// A package directory is packed first. What the registry has already does not move again, so a
/// new version with the same weights moves kilobytes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wick push ./filetype registry.example.com/team/filetype:1.2.0
  wick push filetype-1.2.0.tar registry.example.com/team/filetype:1.2.0
  wick push registry.example.com/team/filetype:1.2.0       an image of the store, by its name")]
pub struct PushArgs {
    /// A package directory, an OCI layout, its tar, or an image of the store
    #[arg(value_name = "PACKAGE")]
    package: String,
    /// Where to; the name of the stored image otherwise
    #[arg(value_name = "IMAGE")]
    image: Option<String>,
    /// Say what would be pushed where
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    images: ImageArgs,
}

pub fn run(args: &PushArgs, format: Format) -> Outcome {
    let path = Path::new(&args.package);
    let is_path = path.exists();
    let to = match (&args.image, is_path) {
        (Some(image), _) => registries::reference(image)?,
        (None, false) => registries::reference(&args.package)?,
        (None, true) => {
            return Err(Failure::usage(format_args!("`{}` is pushed where?", args.package))
                .help("name the image: wick push PACKAGE registry.example.com/team/name:1.0.0"));
        }
    };
    if to.digest().is_some() {
        return Err(Failure::usage(format_args!("`{to}` has a digest"))
            .help("what is pushed has a digest of its own: name a tag"));
    }
    if args.dry_run {
        return plan(args, is_path.then_some(path), &to, format);
    }
    let registry = args.images.registry()?;
    let bar = Bar::new(format, &to);
    let pushed = match is_path {
        true => push_path(args, path, &registry, &to, bar.clone()),
        false => push_stored(&args.images.store()?, &args.package, &registry, &to, bar.clone()),
    };
    bar.done();
    report(&pushed?, format);
    Ok(())
}

fn push_path(
    args: &PushArgs,
    path: &Path,
    registry: &Registry,
    to: &Reference,
    progress: Arc<dyn Progress>,
) -> Outcome<Pushed> {
    let push = |layout: &Path| {
        registries::block_on(async {
            let pushed = registry.push_layout(layout, to, progress.clone()).await;
            pushed.map_err(|error| Failure::of(&error))
        })
    };
    let directory = path.is_dir() && path.join(MANIFEST_FILE).exists();
    if !directory && path.file_name().is_none_or(|name| name != MANIFEST_FILE) {
        return push(path);
    }
    let package = host::open(path)?;
    weights::check_packable(&package)?;
    // Where there is room for images; not /tmp, which often is memory.
    let store = args.images.store()?;
    let scratch = store.scratch().map_err(|error| Failure::stored(&error))?;
    let layout = scratch.path().join("layout");
    let options = Options { format: pack::Format::Folder, reference: Some(to.image().clone()) };
    pack::write_layout(&package, &layout, &options, &mut |_| {})
        .map_err(|error| Failure::of(&error))?;
    push(&layout)
}

fn push_stored(
    store: &Store,
    name: &str,
    registry: &Registry,
    to: &Reference,
    progress: Arc<dyn Progress>,
) -> Outcome<Pushed> {
    let image = store.find(name).map_err(|error| Failure::stored(&error))?;
    registries::block_on(async {
        let pushed = registry.push_stored(store, &image.descriptor, to, progress).await;
        pushed.map_err(|error| Failure::of(&error))
    })
}

fn report(pushed: &Pushed, format: Format) {
    if format == Format::Json {
        return output::json(pushed);
    }
    output::line(pushed.digest);
    let (moved, kept) = (output::size(pushed.moved), output::size(pushed.kept));
    eprintln!("pushed {}: {moved} moved, {kept} were there", pushed.reference);
    eprintln!("next:\n  wick run {}", pushed.reference);
}

fn plan(args: &PushArgs, path: Option<&Path>, to: &Reference, format: Format) -> Outcome {
    let package = match path {
        Some(path) => {
            let package = host::open(path)?;
            weights::check_packable(&package)?;
            package
        }
        None => {
            let store = args.images.store()?;
            let image = store.find(&args.package).map_err(|error| Failure::stored(&error))?;
            host::open(&store.blob_path(image.digest()))?
        }
    };
    let layers = package.layers();
    if format == Format::Json {
        output::json(&json!({ "dry_run": true, "reference": to.to_string(), "layers": layers }));
        return Ok(());
    }
    output::line(format_args!("would push {} to {to}", args.package));
    for layer in layers {
        output::line(format_args!("  {}: {}", output::size(layer.size), layer.files.join(", ")));
    }
    Ok(())
}
