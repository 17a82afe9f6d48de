//! `wick list`: the tags of a repository.

use serde_json::json;
use wick_package::Digest;

use crate::failure::{Failure, Outcome};
use crate::output::{self, Format};
use crate::registries::{self, RegistryArgs};

/// List the tags of a repository
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// A repository, such as registry.example.com/team/filetype
    #[arg(value_name = "REPOSITORY")]
    repository: String,
    /// Also tags that stand for signatures
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    registries: RegistryArgs,
}

pub fn run(args: &ListArgs, format: Format) -> Outcome {
    let reference = registries::reference(&args.repository)?;
    let registry = args.registries.registry()?;
    let tags = registries::block_on(async {
        registry.tags(&reference).await.map_err(|error| Failure::of(&error))
    })?;
    let tags: Vec<_> = tags.into_iter().filter(|tag| args.all || !is_referrer(tag)).collect();
    match format {
        Format::Json => output::json(&json!({ "repository": reference.name(), "tags": tags })),
        _ => tags.iter().for_each(output::line),
    }
    Ok(())
}

/// A tag made of a digest, under which signatures are kept.
fn is_referrer(tag: &str) -> bool {
    let hex = tag.strip_prefix("sha256-").and_then(|rest| rest.get(..64));
    hex.is_some_and(|hex| format!("sha256:{hex}").parse::<Digest>().is_ok())
}
