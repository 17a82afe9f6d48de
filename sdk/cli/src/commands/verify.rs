//! `wick verify`: whether an image is signed by whom it must be, and is what was signed.

use std::path::{Path, PathBuf};

use serde_json::json;
use wick_package::signature::{Admitted, Gate, Policy};
use wick_package::{Digest, Reference};

use crate::failure::{Failure, Outcome};
use crate::output::{self, Format};
use crate::policy::SignatureArgs;
use crate::registries::{self, ImageArgs, PullPolicy};
use crate::{policy, signatures};

/// Check an image's signatures and every byte of it
///
/// With a policy it is what `wick run --policy` checks.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wick verify filetype-1.2.0.tar --key release.pub
  wick verify filetype-1.2.0.tar --policy policy.toml --name registry.example/vision/filetype
  wick verify registry.example/vision/filetype:1.2.0 --key release.pub --out envelope.json
  wick verify registry.example/vision/filetype:1.2.0 --policy policy.toml --node")]
pub struct VerifyArgs {
    /// An image: what `wick pack` has written, or one of a registry, which is pulled if need be
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
    /// A public key that may have signed it; several times: one of them must have
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "policy",
        conflicts_with = "policy"
    )]
    key: Vec<PathBuf>,
    /// The policy that must let it run
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// The name by which it is asked for; what it calls itself otherwise
    #[arg(long, value_name = "REFERENCE")]
    name: Option<Reference>,
    /// Write the image's envelope, with the signatures by these keys or the policy's: for the
    /// annotation of a pod, and for machines that don't reach the registry
    #[arg(short, long, value_name = "FILE", conflicts_with = "node")]
    out: Option<PathBuf>,
    /// Put the envelope into this node's store of signatures
    #[arg(long)]
    node: bool,
    /// When to ask the registry
    #[arg(long, value_enum, default_value = "missing", value_name = "WHEN")]
    pull: PullPolicy,
    #[command(flatten)]
    signatures: SignatureArgs,
    #[command(flatten)]
    images: ImageArgs,
}

pub fn run(args: &VerifyArgs, format: Format) -> Outcome {
    let policy = match &args.policy {
        Some(path) => policy::read(path)?,
        None => Policy::any_of(policy::trusted(&args.key)?),
    };
    let mut gate = args.signatures.gate(policy, args.name.clone())?;
    let asked = std::slice::from_ref(&args.image);
    let (paths, _held) = registries::have_all(asked, &args.images, args.pull, format)?;
    let path = paths.first().unwrap_or(&args.image);
    if path != &args.image {
        policy::know(&mut gate, &args.image, path, &args.images.store()?)?;
    }
    let (package, admitted) = gate.admit(path).map_err(|error| Failure::open(&error))?;
    let envelope = write_envelope(args, &gate, path, package.digest())?;
    let Admitted { image, by, claim } = admitted;
    let signed_at = claim.as_ref().and_then(|claim| claim.signed_at.clone());
    if format == Format::Json {
        output::json(&json!({
            "ok": true, "digest": package.digest(), "name": image, "by": by,
            "package": package.manifest().name, "version": package.manifest().version.to_string(),
            "signed_at": signed_at, "envelope": envelope,
        }));
        return Ok(());
    }
    let whom = match by.is_empty() {
        true => "the policy asks for no signature".to_owned(),
        false => format!("signed by {}", by.join(", ")),
    };
    let when = signed_at.map(|at| format!(" at {at}")).unwrap_or_default();
    output::line(format_args!(
        "{} {image} {}: {whom}{when}",
        output::green("ok:"),
        package.digest()
    ));
    if let Some(path) = envelope {
        eprintln!("wrote {}", path.display());
    }
    Ok(())
}

/// Write the envelope to where it was asked for, and say where that is.
fn write_envelope<'a>(
    args: &'a VerifyArgs,
    gate: &Gate,
    path: &Path,
    image: Digest,
) -> Outcome<Option<&'a Path>> {
    if args.out.is_none() && !args.node {
        return Ok(None);
    }
    let found = gate.signatures(path, image).map_err(|error| Failure::open(&error))?;
    let envelope = signatures::envelope(path, image, found, &gate.policy.keys)?;
    if let Some(out) = &args.out {
        signatures::write(out, envelope)?;
        return Ok(Some(out.as_path()));
    }
    args.signatures.store().put(envelope).map_err(|error| Failure::of(&error))?;
    Ok(Some(args.signatures.place()))
}
