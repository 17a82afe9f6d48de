//! `wick load`: what `wick bundle` has written, or an image's tar, into the store, and what pods
//! need beside it to its place on the node.

use std::path::PathBuf;

use serde_json::json;
use wick_package::Digest;
use wick_package::signature::{NODE_POLICY, Signature, envelope_beside, read_envelope};
use wick_registry::{Incoming, Loaded, Store};

use crate::commands::bundle;
use crate::failure::{Failure, Outcome};
use crate::node::{Filled, Install, NodeArgs};
use crate::output::{self, Format};
use crate::registries::{Bar, StoreArgs};
use crate::signatures;

/// Load images and their signatures from a file into the store
///
/// The file is what `wick bundle` has written, or the tar of an image with its .envelope.json beside
/// it. Every byte is hashed; a file that is damaged leaves no image. What is here already is not
/// copied again, and a load that was cut goes on where it stopped.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wick load site.tar                                   for `wick run`
  wick load site.tar --node --install-policy           for pods; containerd takes the images itself:
  ctr -n k8s.io images import site.tar")]
pub struct LoadArgs {
    /// A bundle, or an OCI layout whose images have names
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Put the bundle's policy where the shim reads it; another that is there is left alone
    #[arg(
        long,
        value_name = "FILE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = NODE_POLICY
    )]
    install_policy: Option<PathBuf>,
    /// Put it there also in place of another
    #[arg(long, requires = "install_policy")]
    replace: bool,
    /// Say what would be loaded
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    store: StoreArgs,
}

/// What a load did.
#[derive(Default)]
struct Done {
    loaded: Loaded,
    filled: Option<Filled>,
}

pub fn run(args: &LoadArgs, format: Format) -> Outcome {
    let incoming = Incoming::open(&args.file).map_err(|error| Failure::load(&error))?;
    let beside = beside(args, &incoming)?;
    let install = args
        .install_policy
        .as_deref()
        .map(|path| Install::plan(&args.file, incoming.policy(), path, args.replace));
    let install = install.transpose()?;
    let mut done = Done::default();
    if !args.dry_run {
        let store = args.store.store()?;
        let bar = Bar::titled(format, "loading");
        let loaded = incoming.load(&store, &*bar);
        bar.done();
        done.loaded = loaded.map_err(|error| Failure::load(&error))?;
        attach(&store, &incoming, &beside)?;
        let images: Vec<_> =
            incoming.named().iter().map(|(name, image)| (name.clone(), image.digest)).collect();
        done.filled = args.node.fill(&store, &images, &beside)?;
        // Last: from then on it is in force, and the signatures must be there.
        install.as_ref().map_or(Ok(()), Install::put)?;
    }
    report(args, &incoming, beside.len(), install.as_ref(), &done, format);
    Ok(())
}

/// The signatures in the file beside an image's tar.
fn beside(args: &LoadArgs, incoming: &Incoming) -> Outcome<Vec<(Digest, Signature)>> {
    let envelope = read_envelope(&envelope_beside(&args.file));
    let Some(envelope) = envelope.map_err(|error| Failure::open(&error))? else {
        return Ok(Vec::new());
    };
    let digest = envelope.digest();
    if !incoming.named().iter().any(|(_, image)| image.digest == digest) {
        tracing::warn!("{}.envelope.json is for another image", args.file.display());
        return Ok(Vec::new());
    }
    Ok(envelope.signatures().iter().map(|signature| (digest, signature.clone())).collect())
}

/// Have signatures in the store as if they had been pulled with their image.
fn attach(store: &Store, incoming: &Incoming, beside: &[(Digest, Signature)]) -> Outcome {
    let stored = |error| Failure::stored(&error);
    let lease = store.lease().map_err(stored)?;
    for (digest, signature) in beside {
        let image = incoming.named().iter().find(|(_, image)| image.digest == *digest);
        // A signature of cosign 2 has no bundle, and goes to the node's store only.
        let artifact = signatures::artifact(signature);
        let (Some((_, image)), Some(artifact)) = (image, artifact) else { continue };
        store.attach_artifact(&lease, image, &artifact).map_err(stored)?;
    }
    Ok(())
}

fn report(
    args: &LoadArgs,
    incoming: &Incoming,
    beside: usize,
    install: Option<&Install<'_>>,
    done: &Done,
    format: Format,
) {
    let (images, digest, file) = (incoming.images(), incoming.digest(), args.file.display());
    if format == Format::Json {
        let policy = install.map(|it| json!({ "path": it.path(), "changed": it.changes() }));
        return output::json(&json!({
            "path": args.file, "digest": digest, "images": images, "beside": beside,
            "moved": done.loaded.moved, "kept": done.loaded.kept, "node": done.filled,
            "has_policy": incoming.policy().is_some(), "policy": policy, "dry_run": args.dry_run,
        }));
    }
    output::line(digest);
    if args.dry_run {
        return plan(args, incoming, beside, install);
    }
    for image in images {
        eprintln!("loaded {}", image.name);
    }
    let (moved, kept) = (output::size(done.loaded.moved), output::size(done.loaded.kept));
    eprintln!("{moved} copied, {kept} were here");
    done.filled.iter().for_each(Filled::report);
    install.iter().for_each(|install| install.report());
    if incoming.policy().is_some() && install.is_none() {
        eprintln!("{file} has a policy: --install-policy puts it in force");
    }
    match images {
        _ if args.node.wanted() => {
            eprintln!("next, for pods:\n  {}", bundle::import(&args.file));
            eprintln!("or with k3s:\n  k3s ctr images import {file}");
        }
        [image, ..] => eprintln!("next:\n  wick run {}", image.name),
        [] => {}
    }
}

fn plan(args: &LoadArgs, incoming: &Incoming, beside: usize, install: Option<&Install<'_>>) {
    let mut table = output::table(["IMAGE", "DIGEST", "SIZE", "REFERRERS"]);
    for image in incoming.images() {
        let (size, referrers) = (output::size(image.size), image.referrers.to_string());
        table.add_row([image.name.clone(), image.digest.short(), size, referrers]);
    }
    output::line(format_args!("would load {}", args.file.display()));
    output::line(table.trim_fmt());
    if beside > 0 {
        eprintln!("would take {beside} signatures from the envelope beside it");
    }
    if args.node.wanted() {
        eprintln!("would put signatures into {}", args.node.place().display());
    }
    if let Some(install) = install {
        let path = install.path().display();
        match install.changes() {
            true => eprintln!("would put the policy into {path}"),
            false => eprintln!("{path} is this policy already"),
        }
    }
}
