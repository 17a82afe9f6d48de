//! `wick pull`: images into the store.

use wick_registry::Pulled;

use crate::failure::{Failure, Outcome};
use crate::output::{self, Format};
use crate::registries::{self, Bar, ImageArgs};

/// Pull images from a registry into the store
///
/// What is in the store already does not move again; a pull that was cut goes on where it stopped.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wick pull registry.example.com/team/filetype:1.2.0
  wick pull localhost:5000/filetype:1 --plain-http")]
pub struct PullArgs {
    /// Images, such as registry.example.com/team/filetype:1.2.0
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    #[command(flatten)]
    flags: ImageArgs,
}

pub fn run(args: &PullArgs, format: Format) -> Outcome {
    let references = args.images.iter().map(|image| registries::reference(image));
    let references = references.collect::<Outcome<Vec<_>>>()?;
    let (registry, store) = (args.flags.registry()?, args.flags.store()?);
    let mut all = Vec::new();
    for reference in references {
        let bar = Bar::new(format, &reference);
        let pulled = registries::block_on(async {
            let pulled = registry.pull(&reference, &store, bar.clone()).await;
            pulled.map_err(|error| Failure::of(&error))
        });
        bar.done();
        let pulled = pulled?;
        if format != Format::Json {
            report(&pulled);
        }
        all.push(pulled);
    }
    match (format, all.as_slice()) {
        (Format::Json, [one]) => output::json(one),
        (Format::Json, several) => output::json(&several),
        _ => {}
    }
    Ok(())
}

fn report(pulled: &Pulled) {
    output::line(pulled.digest);
    let (moved, kept) = (output::size(pulled.moved), output::size(pulled.kept));
    let signed = match pulled.referrers {
        0 => String::new(),
        count => format!("; {count} signatures or other referrers"),
    };
    eprintln!("pulled {}: {moved} moved, {kept} were here{signed}", pulled.reference);
    eprintln!("next:\n  wick run {}", pulled.reference);
}
