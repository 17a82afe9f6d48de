//! `wick sign`: say with a key that an image is approved.

use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;
use std::time::SystemTime;

use serde_json::json;
use wick_package::signature::{Envelope, PublicKey, Signature, Subject, envelope_beside};
use wick_package::{Digest, ImageDocuments, Reference};

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::keys::PassphraseArgs;
use crate::output::{self, Format};
use crate::policy::SignatureArgs;
use crate::registries::{self, ImageArgs, PullPolicy};
use crate::signatures;

/// Sign an image
///
/// What is signed is the digest of the image's index, which holds for every byte of it, and the
/// image's name. The envelope that is written has the signature and the documents with which a
/// node can check the image's files without a network; signing again adds to it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wick sign filetype-1.2.0.tar --key release.key --name registry.example/vision/filetype
  wick sign registry.example/vision/filetype:1.2.0 --key release.key
  wick sign filetype-1.2.0.tar --key release.key --node      for pods of this node")]
pub struct SignArgs {
    /// An image: what `wick pack` has written, or one of a registry, which gets the signature
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
    /// The private key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    /// The name that it is signed for; the image's own otherwise
    #[arg(long, value_name = "REFERENCE")]
    name: Option<Reference>,
    /// The envelope to write; IMAGE.envelope.json otherwise
    #[arg(short, long, value_name = "FILE", conflicts_with = "node")]
    out: Option<PathBuf>,
    /// Put the envelope into this node's store of signatures instead of a file
    #[arg(long)]
    node: bool,
    #[command(flatten)]
    signatures: SignatureArgs,
    #[command(flatten)]
    images: ImageArgs,
    /// Say what would be signed
    #[arg(long)]
    dry_run: bool,
}

/// Where a signature goes.
enum To {
    /// To the image at its registry, as a referrer.
    Registry(Reference),
    Node(PathBuf),
    File(PathBuf),
}

pub fn run(args: &SignArgs, format: Format) -> Outcome {
    let asked = std::slice::from_ref(&args.image);
    let policy = PullPolicy::default();
    let (paths, _held) = registries::have_all(asked, &args.images, policy, format)?;
    let path = paths.first().unwrap_or(&args.image);
    let named = registries::name_of(&args.image).map(registries::reference).transpose()?;
    let image = ImageDocuments::read(path).map_err(|error| Failure::open(&error))?;
    let subject = subject(args, &image, named.as_ref())?;
    let key = args.passphrase.private_key(&args.key)?;
    let to = match (args.node, &args.out, named) {
        (true, ..) => To::Node(args.signatures.place().to_owned()),
        (false, Some(out), _) => To::File(out.clone()),
        (false, None, Some(named)) => To::Registry(named),
        (false, None, None) => To::File(envelope_beside(&args.image)),
    };
    if !args.dry_run {
        to.put(args, image, Signature::sign(&subject, &key))?;
    }
    report(args, &subject, &key.public(), &to, format);
    Ok(())
}

fn report(args: &SignArgs, subject: &Subject, key: &PublicKey, to: &To, format: Format) {
    let (id, name, to) = (key.id(), subject.image.name(), to.to_string());
    if format == Format::Json {
        output::json(&json!({
            "digest": subject.digest, "name": name, "key": id, "package": subject.package,
            "version": subject.version, "signed_at": subject.signed_at, "to": to,
            "dry_run": args.dry_run,
        }));
        return;
    }
    let (signed, wrote) =
        if args.dry_run { ("would sign", "would write") } else { ("signed", "wrote") };
    output::line(subject.digest);
    eprintln!("{signed} {} for {name} with {id}", args.image.display());
    eprintln!("{wrote} {to}");
}

fn subject(args: &SignArgs, image: &ImageDocuments, asked: Option<&Reference>) -> Outcome<Subject> {
    let name = args.name.as_ref().or(asked).or(image.name.as_ref()).ok_or_else(|| {
        Failure::usage(format_args!("{} does not say what it is called", args.image.display()))
            .help("give the name that it is signed for with --name")
    })?;
    if name.digest().is_some_and(|pinned| pinned != image.digest) {
        let text = format!("{name} pins another digest than the image's, {}", image.digest);
        return Err(Failure::new(Exit::BadData, "digest-mismatch", text));
    }
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    Ok(Subject {
        digest: image.digest,
        image: name.clone(),
        package: image.package.clone(),
        version: image.version.clone(),
        signed_at: Some(now),
    })
}

// === impl To ===

impl To {
    fn put(&self, args: &SignArgs, image: ImageDocuments, signature: Signature) -> Outcome {
        if let Self::Registry(reference) = self {
            return attach(args, reference, image.digest, &signature);
        }
        let envelope = Envelope::new(image.digest, image.documents, vec![signature]);
        let envelope = envelope.map_err(|error| Failure::of(&error))?;
        match self {
            Self::File(path) => signatures::write(path, envelope),
            _ => args.signatures.store().put(envelope).map_err(|error| Failure::of(&error)),
        }
    }
}

impl Display for To {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => write!(f, "{}", reference.name()),
            Self::Node(path) | Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Put a signature beside its image at the registry, and in the store, where the image is now.
fn attach(args: &SignArgs, reference: &Reference, image: Digest, signature: &Signature) -> Outcome {
    // Only signatures of cosign 2 are none, and this one is ours.
    let Some(artifact) = signatures::artifact(signature) else { return Ok(()) };
    let registry = args.images.registry()?;
    registries::block_on(async {
        let attached = registry.attach(reference, image, &artifact).await;
        attached.map(drop).map_err(|error| Failure::of(&error))
    })?;
    let store = args.images.store()?;
    let keep = || {
        let stored = store.find(&image.to_string())?;
        let lease = store.lease()?;
        store.attach_artifact(&lease, &stored.descriptor, &artifact).map(drop)
    };
    keep().map_err(|error| Failure::stored(&error))
}
