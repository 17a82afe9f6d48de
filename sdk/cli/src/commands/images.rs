//! `wick images`, `wick rm` and `wick gc`: what is in the store, and what leaves it.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use wick_package::Package;
use wick_registry::gc::Limits;
use wick_registry::{Damaged, Fault, Progress, Report, Store, StoredImage, Swept};

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::{self, Format};
use crate::quantity;
use crate::registries::StoreArgs;

/// List the images of the store
#[derive(Debug, clap::Args)]
pub struct ImagesArgs {
    /// Read every byte of the store, and say what is damaged
    #[arg(long)]
    check: bool,
    /// Remove what is damaged, so that it is pulled again
    #[arg(long)]
    repair: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// Remove images from the store
///
/// What no other image needs is deleted, unless it is in use.
#[derive(Debug, clap::Args)]
pub struct RmArgs {
    /// Names, digests or the beginning of digests; all names of an image, if it is a digest
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Say what would be removed
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// Delete what the store does not need
///
/// Without flags that is what no image refers to: left by pulls that were given up more than a day
/// ago. What is in use or is pulled now stays in any case.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wick gc
  wick gc --unused 30days --max-size 20GB")]
pub struct GcArgs {
    /// Also images that were not used for this long
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    unused: Option<Duration>,
    /// Also images, the least recently used first, until the store is no larger
    #[arg(long, value_name = "SIZE", value_parser = quantity::size)]
    max_size: Option<u64>,
    /// How long a pull that was given up may go on where it stopped
    #[arg(long, value_name = "TIME", default_value = "1day", value_parser = quantity::duration)]
    grace: Duration,
    /// Say what would be deleted
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// A progress bar over bytes that are read.
struct Reading(indicatif::ProgressBar);

pub fn list(args: &ImagesArgs, format: Format) -> Outcome {
    let store = args.store.store()?;
    if args.check || args.repair {
        return check(&store, args.repair, format);
    }
    let images = store.images().map_err(|error| Failure::stored(&error))?;
    if format == Format::Json {
        let images: Vec<_> = images.iter().map(|image| to_json(&store, image)).collect();
        output::json(&json!({ "store": store.root(), "images": images }));
        return Ok(());
    }
    let mut table = output::table(["IMAGE", "DIGEST", "SIZE", "PULLED", "USED", "REFERRERS"]);
    for image in &images {
        let unnamed = ["(no name)".to_owned()];
        let names = if image.names.is_empty() { &unnamed[..] } else { &image.names };
        for name in names {
            table.add_row([
                name.clone(),
                image.digest().short(),
                size(&store, image).map_or_else(|| "damaged".to_owned(), output::size),
                ago(image.stored),
                ago(image.used),
                image.referrers.len().to_string(),
            ]);
        }
    }
    output::line(table.trim_fmt());
    Ok(())
}

pub fn remove(args: &RmArgs, format: Format) -> Outcome {
    let store = args.store.store()?;
    let mut all = Swept::default();
    for image in &args.images {
        let swept = store.remove(image, args.dry_run).map_err(|error| Failure::stored(&error))?;
        all.images.extend(swept.images);
        all.blobs += swept.blobs;
        all.partials += swept.partials;
        all.bytes += swept.bytes;
        all.damaged = swept.damaged;
    }
    report(&all, args.dry_run, format);
    Ok(())
}

pub fn collect(args: &GcArgs, format: Format) -> Outcome {
    let limits = Limits { unused: args.unused, bytes: args.max_size, grace: args.grace };
    let swept = args.store.store()?.gc(&limits, args.dry_run);
    report(&swept.map_err(|error| Failure::stored(&error))?, args.dry_run, format);
    Ok(())
}

fn report(swept: &Swept, dry_run: bool, format: Format) {
    if format == Format::Json {
        let mut json = serde_json::to_value(swept).unwrap_or_default();
        json["dry_run"] = dry_run.into();
        return output::json(&json);
    }
    for image in &swept.images {
        output::line(image);
    }
    for Damaged { image, why } in &swept.damaged {
        let what = output::cyan("damaged:");
        eprintln!("{what} {image}: {why}; it stays until `wick rm` or `wick images --repair`");
    }
    let would = if dry_run { "would free" } else { "freed" };
    let bytes = output::size(swept.bytes);
    eprintln!("{would} {bytes}: {} blobs, {} unfinished", swept.blobs, swept.partials);
}

fn check(store: &Store, repair: bool, format: Format) -> Outcome {
    let bar = output::progress(format, Some(0), "reading [{bar:32}] {bytes}/{total_bytes}");
    let reading = Reading(bar);
    let report = match repair {
        true => store.repair(&reading),
        false => store.check(&reading),
    };
    reading.0.finish_and_clear();
    let report = report.map_err(|error| Failure::stored(&error))?;
    if report.faults.is_empty() || repair {
        if format == Format::Json {
            let mut json = serde_json::to_value(&report).unwrap_or_default();
            json["repaired"] = repair.into();
            output::json(&json);
            return Ok(());
        }
        for fault in &report.faults {
            output::line(text(fault));
        }
        let Report { images, blobs, bytes, .. } = &report;
        eprintln!("{images} images, {blobs} blobs, {}", output::size(*bytes));
        return Ok(());
    }
    let list: Vec<_> = report.faults.iter().map(text).collect();
    let what = format!("{} is damaged:\n  {}", store.root().display(), list.join("\n  "));
    let faults = serde_json::to_value(&report.faults).unwrap_or_default();
    Err(Failure::new(Exit::BadData, "damaged-store", what)
        .detail("faults", faults)
        .help("`wick images --repair` removes what is damaged, so that it is pulled again"))
}

fn text(fault: &Fault) -> String {
    match fault {
        Fault::Index { why } => format!("index.json: {why}"),
        Fault::Blob { digest, got } => format!("blob {digest} has other bytes: {got}"),
        Fault::Stray { path } => format!("{} is no blob", path.display()),
        Fault::Image { name, why } => format!("image {name}: {why}"),
    }
}

fn to_json(store: &Store, image: &StoredImage) -> Value {
    let seconds = |time: SystemTime| {
        time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
    };
    json!({
        "digest": image.digest(),
        "names": image.names,
        "size": size(store, image),
        "pulled": seconds(image.stored),
        "used": seconds(image.used),
        "complete": store.is_complete(&image.descriptor),
        "referrers": image.referrers,
    })
}

/// Bytes of its layers; none if it can't be opened.
fn size(store: &Store, image: &StoredImage) -> Option<u64> {
    let package = Package::open_image(store.root(), image.digest()).ok()?;
    Some(package.layers().iter().map(|layer| layer.size).sum())
}

fn ago(time: SystemTime) -> String {
    let since = SystemTime::now().duration_since(time).unwrap_or_default();
    format!("{} ago", indicatif::HumanDuration(since))
}

// === impl Reading ===

impl Progress for Reading {
    fn planned(&self, bytes: u64) {
        self.0.inc_length(bytes);
    }

    fn moved(&self, bytes: u64) {
        self.0.inc(bytes);
    }
}
