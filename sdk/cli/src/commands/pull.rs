//! `wick pull`: images into the store.

use serde_json::Value;
use wick_registry::Pulled;

use crate::failure::{Failure, Outcome};
use crate::node::{Filled, NodeArgs};
use crate::output::{self, Format};
use crate::registries::{self, Bar, ImageArgs};

/// Pull images from a registry into the store
///
/// What is in the store already does not move again; a pull that was cut goes on where it stopped.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wick pull registry.example.com/team/filetype:1.2.0
  wick pull localhost:5000/filetype:1 --plain-http
  wick pull registry.example.com/team/filetype:1.2.0 --node    its signatures, for pods of this node")]
pub struct PullArgs {
    /// Images, such as registry.example.com/team/filetype:1.2.0
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    #[command(flatten)]
    node: NodeArgs,
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
        let filled = args.node.fill(&store, &[(reference, pulled.digest)], &[])?;
        if format != Format::Json {
            report(&pulled);
            filled.iter().for_each(Filled::report);
        }
        all.push(to_json(&pulled, filled));
    }
    match (format, all.as_slice()) {
        (Format::Json, [one]) => output::json(one),
        (Format::Json, several) => output::json(&several),
        _ => {}
    }
    Ok(())
}

fn to_json(pulled: &Pulled, filled: Option<Filled>) -> Value {
    let mut json = serde_json::to_value(pulled).unwrap_or_default();
    if let Some(filled) = filled {
        json["node"] = serde_json::to_value(filled).unwrap_or_default();
    }
    json
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
