//! `wick bundle`: images, their signatures and the policy for them in one file, for places without
//! a registry.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use wick_package::oci::Descriptor;
use wick_package::signature::{Decision, MAX_POLICY, Policy, Request};
use wick_package::{Digest, Reason as _, Reference};
use wick_registry::{Bundle, Store};

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::{self, Format};
use crate::registries::{self, Bar, ImageArgs, PullPolicy};
use crate::{policy, signatures};

/// Architectures of nodes, as images spell them.
const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];

/// Write images, with their signatures, into one file for a site without a registry
///
/// The file is a tar that `wick load` takes, and `ctr images import` as it is. Images that are not
/// in the store are pulled first. The same images give the same file. What is printed is the digest
/// of the file's index, which holds for all that is in it; `wick load` prints the same.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wick bundle registry.example.com/team/filetype:1.2.0 registry.example.com/team/ocr:2.0.0 \\
      -o site.tar --policy policy.toml
  wick load site.tar --node --install-policy       at the site, and
  ctr -n k8s.io images import site.tar             for its pods")]
pub struct BundleArgs {
    /// Images of the store or a registry, under the names that they are to have at the site
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// The file to write; a bundle that is there is replaced
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// A policy that goes along, with its keys, and that must let the images run
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Take images also if the policy does not let them run
    #[arg(long, requires = "policy")]
    allow_refused: bool,
    /// When to ask the registry
    #[arg(long, value_enum, default_value = "missing", value_name = "WHEN")]
    pull: PullPolicy,
    /// Say what would be written, and pull nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    flags: ImageArgs,
}

/// An image that the policy would not let run.
struct Refused {
    name: String,
    code: &'static str,
    why: String,
}

pub fn run(args: &BundleArgs, format: Format) -> Outcome {
    // Before anything is pulled: it may have mistakes.
    let policy = args.policy.as_deref().map(policy::read_whole).transpose()?;
    if let Some((_, text)) = policy.as_ref().filter(|(_, text)| text.len() as u64 > MAX_POLICY) {
        let text =
            format!("with its keys the policy has {} bytes: {MAX_POLICY} are read", text.len());
        return Err(Failure::new(Exit::BadData, "bad-policy", text));
    }
    let store = args.flags.store()?;
    let (mut images, mut missing) = (Vec::new(), Vec::new());
    for text in &args.images {
        let image = match args.dry_run {
            true => registries::find(&store, text).map(|image| image.descriptor),
            false => Some(registries::have(text, &args.flags, &store, args.pull, format)?),
        };
        match image {
            Some(image) => {
                images
                    .extend(names(&store, text, &image)?.into_iter().map(|it| (it, image.clone())));
            }
            None => missing.push(registries::reference(text)?.to_string()),
        }
    }
    let refused = match &policy {
        Some((policy, _)) => refused(&store, policy, &images)?,
        None => Vec::new(),
    };
    if !refused.is_empty() && !args.allow_refused {
        return Err(refuse(&refused));
    }
    let bundle = Bundle::plan(&store, &images, policy.map(|(_, text)| text));
    let bundle = bundle.map_err(|error| Failure::stored(&error))?;
    let list = list(&store, &bundle)?;
    if args.dry_run {
        plan(args, &bundle, list, &missing, &refused, format);
        return Ok(());
    }
    let bar = Bar::titled(format, "bundling");
    let written = bundle.write(&args.out, &*bar);
    bar.done();
    let digest = written.map_err(|error| Failure::bundle(&error))?;
    report(args, &bundle, list, digest, &refused, format);
    Ok(())
}

/// What an image is called in the bundle: what it was asked for by, or all its names where that was
/// the beginning of a digest.
fn names(store: &Store, text: &str, image: &Descriptor) -> Outcome<Vec<Reference>> {
    let stored = store.find(&image.digest.to_string()).map_err(|error| Failure::stored(&error))?;
    if let Some(name) = text.parse().ok().filter(|name| stored.answers(name)) {
        return Ok(vec![name]);
    }
    let names: Vec<_> = stored.names.iter().filter_map(|name| name.parse().ok()).collect();
    if names.is_empty() {
        return Err(Failure::usage(format_args!("the image {text} has no name in the store"))
            .help(
                "write the name that it is to have: REGISTRY/PATH:TAG, or with @ and its digest",
            ));
    }
    Ok(names)
}

/// The images that a policy would not let run, under their names.
fn refused(
    store: &Store,
    policy: &Policy,
    images: &[(Reference, Descriptor)],
) -> Outcome<Vec<Refused>> {
    let mut all = Vec::new();
    for (name, image) in images {
        let signatures = signatures::stored(store, image.digest)?;
        let request = Request { image: name, self_named: false, digest: image.digest };
        let refused = match policy.decide(&request, &signatures) {
            Decision::Refused(refusal) => Some((refusal.code(), refusal.to_string())),
            // Nodes compare nothing where no signature is needed.
            Decision::Allowed { by, .. } if by.is_empty() => None,
            Decision::Allowed { .. } => unlisted(store, name, image.digest)?,
        };
        let name = name.to_string();
        all.extend(refused.map(|(code, why)| Refused { name, code, why }));
    }
    Ok(all)
}

/// Why a node could not compare the files of a signed image, if it could not.
fn unlisted(
    store: &Store,
    name: &Reference,
    image: Digest,
) -> Outcome<Option<(&'static str, String)>> {
    let Some(envelope) = signatures::for_node(store, image, Vec::new())? else { return Ok(None) };
    let mut errors = ARCHITECTURES.iter().map(|it| envelope.files(it).err());
    // Nodes of the other architecture have no use for it; one is enough.
    let (Some(error), Some(_)) = (errors.next().flatten(), errors.next().flatten()) else {
        return Ok(None);
    };
    Ok(Some((error.code(), format!("{name} ({image}) is signed, and yet: {error}"))))
}

fn refuse(refused: &[Refused]) -> Failure {
    let list: Vec<_> = refused.iter().map(|it| it.why.as_str()).collect();
    let text = format!(
        "the policy would not let this run, so nothing was written:\n  {}",
        list.join("\n  ")
    );
    let code = refused.first().map_or("policy-denies", |it| it.code);
    Failure::new(Exit::Denied, code, text)
        .detail("refused", refused.iter().map(Refused::to_json).collect())
        .help(
            "--pull always brings signatures that are newer than the store's image; \
             --allow-refused takes what is refused all the same",
        )
}

/// The images of a bundle, with the number of signatures that are read.
fn list(store: &Store, bundle: &Bundle) -> Outcome<Vec<Value>> {
    let one = |image: &wick_registry::Bundled| {
        let mut json = serde_json::to_value(image).unwrap_or_default();
        json["signatures"] = signatures::stored(store, image.digest)?.len().into();
        Ok(json)
    };
    bundle.images().iter().map(one).collect()
}

fn report(
    args: &BundleArgs,
    bundle: &Bundle,
    list: Vec<Value>,
    digest: Digest,
    refused: &[Refused],
    format: Format,
) {
    let path = args.out.display();
    if format == Format::Json {
        return output::json(&json!({
            "path": args.out, "digest": digest, "size": bundle.size(), "images": list,
            "policy": args.policy, "refused": Refused::all(refused), "dry_run": false,
        }));
    }
    output::line(digest);
    tell(bundle, refused);
    let (count, size) = (list.len(), output::size(bundle.size()));
    eprintln!("bundled {count} image{} ({size}) into {path}", if count == 1 { "" } else { "s" });
    let policy = if args.policy.is_some() { " --install-policy" } else { "" };
    eprintln!("next, at the site:\n  wick load {path} --node{policy}");
    eprintln!("  {}", import(&args.out));
}

fn plan(
    args: &BundleArgs,
    bundle: &Bundle,
    list: Vec<Value>,
    missing: &[String],
    refused: &[Refused],
    format: Format,
) {
    if format == Format::Json {
        return output::json(&json!({
            "path": args.out, "size": bundle.size(), "images": list, "missing": missing,
            "policy": args.policy, "refused": Refused::all(refused), "dry_run": true,
        }));
    }
    output::line(format_args!("would bundle into {}", args.out.display()));
    let mut table = output::table(["IMAGE", "DIGEST", "SIZE", "SIGNATURES"]);
    for (image, json) in bundle.images().iter().zip(&list) {
        let signatures = json["signatures"].to_string();
        table.add_row([
            image.name.clone(),
            image.digest.short(),
            output::size(image.size),
            signatures,
        ]);
    }
    for image in missing {
        table.add_row([
            image.clone(),
            "(would be pulled)".to_owned(),
            String::new(),
            String::new(),
        ]);
    }
    output::line(table.trim_fmt());
    tell(bundle, refused);
    eprintln!("{} together; what images share is there once", output::size(bundle.size()));
}

/// What people should know of it.
fn tell(bundle: &Bundle, refused: &[Refused]) {
    for Refused { why, .. } in refused {
        eprintln!("{} {why}", output::red("warning:"));
    }
    for image in bundle.images().iter().filter(|image| !image.absent.is_empty()) {
        let absent = image.absent.join(", ");
        eprintln!("{}: without {absent}, which a pull on this machine leaves out", image.name);
    }
}

/// How containerd gets the images of a file.
pub fn import(file: &Path) -> String {
    format!("ctr -n k8s.io images import {}", file.display())
}

// === impl Refused ===

impl Refused {
    fn to_json(&self) -> Value {
        json!({ "name": self.name, "code": self.code, "why": self.why })
    }

    fn all(refused: &[Self]) -> Vec<Value> {
        refused.iter().map(Self::to_json).collect()
    }
}
