//! `wick sign`: say with a key that an image is approved.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::json;
use wick_package::signature::{Envelope, Signature, Subject, envelope_beside, read_envelope};
use wick_package::{ImageDocuments, ImageName};

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::keys::PassphraseArgs;
use crate::output::{self, Format};
use crate::policy::SignatureArgs;

/// Sign an image
///
/// What is signed is the digest of the image's index, which holds for every byte of it, and the
/// image's name. The envelope that is written has the signature and the documents with which a
/// node can check the image's files without a network; signing again adds to it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wick sign filetype-1.2.0.tar --key release.key --name registry.example/vision/filetype
  wick sign filetype-1.2.0.tar --key release.key --node      for pods of this node")]
pub struct SignArgs {
    /// An image: what `wick pack` has written
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
    /// The private key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    /// The name that it is signed for; the image's own otherwise
    #[arg(long, value_name = "REFERENCE")]
    name: Option<ImageName>,
    /// The envelope to write; IMAGE.envelope.json otherwise
    #[arg(short, long, value_name = "FILE", conflicts_with = "node")]
    out: Option<PathBuf>,
    /// Put the envelope into this node's store of signatures instead of a file
    #[arg(long)]
    node: bool,
    #[command(flatten)]
    signatures: SignatureArgs,
    /// Say what would be signed
    #[arg(long)]
    dry_run: bool,
}

pub fn run(args: &SignArgs, format: Format) -> Outcome {
    let image = ImageDocuments::read(&args.image).map_err(|error| Failure::open(&error))?;
    let subject = subject(args, &image)?;
    let key = args.passphrase.private_key(&args.key)?;
    let id = key.public().id();
    let to = match (args.node, &args.out) {
        (true, _) => args.signatures.place().to_owned(),
        (false, Some(out)) => out.clone(),
        (false, None) => envelope_beside(&args.image),
    };
    if !args.dry_run {
        let signature = Signature::sign(&subject, &key);
        let envelope = Envelope::new(image.digest, image.documents, vec![signature]);
        let envelope = envelope.map_err(|error| Failure::of(&error))?;
        match args.node {
            true => args.signatures.store().put(envelope).map_err(|error| Failure::of(&error))?,
            false => write(&to, envelope)?,
        }
    }
    if format == Format::Json {
        output::json(&json!({
            "digest": subject.digest, "name": subject.image.name(), "key": id,
            "package": subject.package, "version": subject.version,
            "signed_at": subject.signed_at, "envelope": to, "dry_run": args.dry_run,
        }));
        return Ok(());
    }
    let verb = if args.dry_run { "would sign" } else { "signed" };
    output::line(subject.digest);
    eprintln!("{verb} {} for {} with {id}", args.image.display(), subject.image.name());
    eprintln!("{} {}", if args.dry_run { "would write" } else { "wrote" }, to.display());
    Ok(())
}

fn subject(args: &SignArgs, image: &ImageDocuments) -> Outcome<Subject> {
    let name = args.name.clone().or_else(|| image.name.clone()).ok_or_else(|| {
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
        image: name,
        package: image.package.clone(),
        version: image.version.clone(),
        signed_at: Some(now),
    })
}

/// Write an envelope, with the signatures that are there.
fn write(path: &Path, envelope: Envelope) -> Outcome {
    let before = read_envelope(path).map_err(|error| Failure::open(&error))?;
    let whole = match before {
        Some(before) => before.merged(envelope).map_err(|error| {
            Failure::of(&error).about(path).help("name another file with --out, or remove it")
        })?,
        None => envelope,
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let write = || {
        let mut file = tempfile::NamedTempFile::new_in(folder.unwrap_or_else(|| Path::new(".")))?;
        std::io::Write::write_all(&mut file, whole.to_json().as_bytes())?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        file.as_file().set_permissions(mode)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(|error: std::io::Error| {
        let text = format!("cannot write {}", path.display());
        Failure::new(Exit::CannotCreate, "cannot-write", text).caused_by(Some(&error))
    })
}
