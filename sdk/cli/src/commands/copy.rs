//! `wick copy`: an image from one registry to another.

use crate::failure::{Failure, Outcome};
use crate::output::{self, Format};
use crate::registries::{self, Bar, RegistryArgs};

/// Copy an image from one registry to another, with all its platforms and signatures
///
/// Nothing is written to the disk. Between repositories of one registry nothing moves at all.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wick copy registry.example.com/team/filetype:1.2.0 edge.example.com:5000/filetype:1.2.0")]
pub struct CopyArgs {
    /// The image
    #[arg(value_name = "FROM")]
    from: String,
    /// Its new name
    #[arg(value_name = "TO")]
    to: String,
    #[command(flatten)]
    registries: RegistryArgs,
}

pub fn run(args: &CopyArgs, format: Format) -> Outcome {
    let (from, to) = (registries::reference(&args.from)?, registries::reference(&args.to)?);
    if to.digest().is_some() {
        return Err(Failure::usage(format_args!("`{to}` has a digest"))
            .help("a copy has the digest of what is copied: name a tag"));
    }
    let registry = args.registries.registry()?;
    let bar = Bar::new(format, &from);
    let copied = registries::block_on(async {
        let copied = registry.copy(&from, &to, bar.clone()).await;
        copied.map_err(|error| Failure::of(&error))
    });
    bar.done();
    let copied = copied?;
    if format == Format::Json {
        output::json(&copied);
        return Ok(());
    }
    output::line(copied.digest);
    let (moved, kept) = (output::size(copied.moved), output::size(copied.kept));
    eprintln!("copied {} to {}: {moved} moved, {kept} were there", copied.from, copied.to);
    Ok(())
}
