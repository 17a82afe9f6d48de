//! `wick key`: key pairs to sign packages with.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;
use wick_package::signature::{Encryption, PrivateKey, PublicKey};
use zeroize::Zeroizing;

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::keys::{self, PassphraseArgs};
use crate::output::{self, Format};
use crate::random;

/// Mode of a private key: its owner's alone.
const PRIVATE: u32 = 0o600;
const PUBLIC: u32 = 0o644;

/// Shortest passphrase that is taken: anything shorter is guessed in hours.
const MIN_PASSPHRASE: usize = 8;

/// Make a key pair to sign with, or show one
#[derive(Debug, clap::Args)]
pub struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, clap::Subcommand)]
enum KeyCommand {
    /// Make an ed25519 key pair: NAME.key, which nobody else may have, and NAME.pub
    Generate(GenerateArgs),
    /// Show the public half of a key, and what it is known by
    Show(ShowArgs),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wick key generate release
  WICK_KEY_PASSPHRASE=… wick key generate release")]
struct GenerateArgs {
    /// Path of the two files, without their endings
    #[arg(value_name = "NAME", default_value = "wick")]
    name: PathBuf,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    /// Keep the private key without a passphrase, and don't ask for one
    #[arg(long, conflicts_with = "passphrase_file")]
    no_passphrase: bool,
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// A private or a public key
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

pub fn run(args: &KeyArgs, format: Format) -> Outcome {
    match &args.command {
        KeyCommand::Generate(args) => generate(args, format),
        KeyCommand::Show(args) => show(args, format),
    }
}

fn generate(args: &GenerateArgs, format: Format) -> Outcome {
    let (private, public) = (with_ending(&args.name, "key"), with_ending(&args.name, "pub"));
    // Before anybody types a passphrase for nothing.
    for path in [&private, &public] {
        if path.symlink_metadata().is_ok() {
            return Err(exists(path));
        }
    }
    let passphrase = match args.no_passphrase {
        true => None,
        false => passphrase(&args.passphrase)?,
    };
    let key = PrivateKey::from_seed(&Zeroizing::new(random::bytes()?));
    let encryption = match &passphrase {
        Some(text) => {
            let (salt, iv) = (random::bytes()?, random::bytes()?);
            Some(Encryption { passphrase: text, salt, iv })
        }
        None => None,
    };
    let pem = key.to_pem(encryption.as_ref()).map_err(|error| Failure::of(&error))?;
    create(&private, pem.as_bytes(), PRIVATE)?;
    create(&public, key.public().to_pem().as_bytes(), PUBLIC)?;
    if format == Format::Json {
        let mut json = to_json(&key.public());
        json["private"] = private.display().to_string().into();
        json["public"] = public.display().to_string().into();
        json["encrypted"] = passphrase.is_some().into();
        output::json(&json);
        return Ok(());
    }
    output::line(key.public().id());
    if passphrase.is_none() {
        eprintln!("{} has no passphrase: whoever reads it can sign", private.display());
    }
    eprintln!("wrote {} and {}", private.display(), public.display());
    eprintln!("next:\n  wick sign IMAGE --key {}", private.display());
    Ok(())
}

/// The passphrase that was given, or typed twice; none if none is wanted.
fn passphrase(args: &PassphraseArgs) -> Outcome<Option<Zeroizing<String>>> {
    let passphrase = match args.given()? {
        Some(given) => Some(given),
        None => {
            let typed = keys::ask("passphrase of the new key (empty for none): ")?;
            let typed = typed.filter(|typed| !typed.is_empty());
            if let Some(typed) = &typed
                && keys::ask("the same again: ")?.as_ref() != Some(typed)
            {
                return Err(Failure::usage("the two passphrases differ"));
            }
            typed
        }
    };
    if passphrase.as_ref().is_some_and(|text| text.chars().count() < MIN_PASSPHRASE) {
        let text = format!("a passphrase has at least {MIN_PASSPHRASE} characters");
        return Err(Failure::usage(text).help("--no-passphrase keeps the key without one"));
    }
    Ok(passphrase)
}

/// `a.b` and `key` is `a.b.key`: a name may have dots.
fn with_ending(name: &Path, ending: &str) -> PathBuf {
    let mut path = name.as_os_str().to_owned();
    path.push(".");
    path.push(ending);
    path.into()
}

/// A key is never replaced: what it signed could not be signed again.
fn create(path: &Path, bytes: &[u8], mode: u32) -> Outcome {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = file.and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => exists(path),
        _ => Failure::new(
            Exit::CannotCreate,
            "cannot-write",
            format!("cannot write {}", path.display()),
        )
        .caused_by(Some(&error)),
    })
}

fn exists(path: &Path) -> Failure {
    let text = format!("{} exists, and a key is never replaced", path.display());
    Failure::new(Exit::CannotCreate, "output-occupied", text).help("choose another name")
}

fn show(args: &ShowArgs, format: Format) -> Outcome {
    let text = Zeroizing::new(keys::read(&args.file)?);
    let public = match text.contains("PRIVATE KEY-----") {
        true => args.passphrase.private_key(&args.file)?.public(),
        false => keys::public_key(&args.file)?,
    };
    if format == Format::Json {
        output::json(&to_json(&public));
        return Ok(());
    }
    eprintln!("{} {}", public.algorithm(), public.id());
    output::line(public.to_pem().trim_end());
    Ok(())
}

fn to_json(key: &PublicKey) -> serde_json::Value {
    json!({ "id": key.id(), "algorithm": key.algorithm(), "pem": key.to_pem() })
}
