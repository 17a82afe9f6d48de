//! The policy and the signatures that flags name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use wick_package::signature::{
    Envelope, Gate, NODE_STORE, NodeStore, Policy, TrustedKey, read_envelope,
};
use wick_package::{Digest, ManifestErrors, Package, Reference};
use wick_registry::{Store, StoredImage};
use wick_serve::Opener;

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::registries::{self, ImageArgs};
use crate::{keys, signatures};

/// Flags about where signatures are.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Signatures")]
pub struct SignatureArgs {
    /// An envelope with signatures; IMAGE.envelope.json is read in any case
    #[arg(long, value_name = "FILE")]
    envelope: Vec<PathBuf>,
    /// The node's store of signatures
    #[arg(long, value_name = "DIR", env = "WICK_SIGNATURES", default_value = NODE_STORE)]
    signatures: PathBuf,
}

/// Flags of commands that run packages.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Signatures")]
pub struct PolicyArgs {
    /// Run only what this policy lets run: who must have signed which names
    #[arg(long, value_name = "FILE", env = "WICK_POLICY")]
    policy: Option<PathBuf>,
    #[command(flatten)]
    signatures: SignatureArgs,
    #[arg(skip)]
    gate: Option<Gate>,
}

// === impl SignatureArgs ===

impl SignatureArgs {
    /// A gate with this policy.
    ///
    /// # Errors
    /// An envelope that was named is not there, or is none.
    pub fn gate(&self, policy: Policy, name: Option<Reference>) -> Outcome<Gate> {
        let envelopes = self.envelope.iter().map(|path| named(path));
        let envelopes = envelopes.collect::<Outcome<_>>()?;
        Ok(Gate { policy, envelopes, store: Some(self.store()), name, names: BTreeMap::new() })
    }

    pub fn store(&self) -> NodeStore {
        NodeStore::new(&self.signatures, rustix::process::geteuid().as_raw())
    }

    /// Where the store is, for people.
    pub fn place(&self) -> &Path {
        &self.signatures
    }
}

// === impl PolicyArgs ===

impl PolicyArgs {
    /// Read what the flags name, before anything is opened.
    ///
    /// # Errors
    /// A file can't be read, or has mistakes.
    pub fn load(&mut self) -> Outcome {
        if let Some(path) = &self.policy {
            self.gate = Some(self.signatures.gate(read(path)?, None)?);
        }
        Ok(())
    }

    /// Tell the gate of an image that was asked for by name and is in the store now.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn know(&mut self, asked: &Path, path: &Path, images: &ImageArgs) -> Outcome {
        match &mut self.gate {
            Some(gate) => know(gate, asked, path, &images.store()?),
            None => Ok(()),
        }
    }

    /// Open a package, if the policy lets it run.
    ///
    /// # Errors
    /// It does not, or the package can't be opened.
    pub fn open(&self, path: &Path) -> Outcome<Package> {
        let opened = match &self.gate {
            Some(gate) => gate.open(path),
            None => Package::open(path),
        };
        opened.map_err(|error| Failure::open(&error))
    }

    /// The same for whoever opens packages again and again.
    pub fn opener(&self) -> Opener {
        match self.gate.clone() {
            Some(gate) => Opener::new(move |path| gate.open(path)),
            None => Opener::default(),
        }
    }

    /// As [`Self::opener`], for images of a store that come while it runs: `find` says which one a
    /// path is, and so what it is called and which signatures came with it.
    pub fn opener_of(
        &self,
        find: impl Fn(&Path) -> Option<(Store, StoredImage)> + Send + Sync + 'static,
    ) -> Opener {
        let Some(gate) = self.gate.clone() else { return Opener::default() };
        Opener::new(move |path| {
            let mut gate = gate.clone();
            if let Some((store, image)) = find(path) {
                let name = image.names.first().and_then(|name| name.parse::<Reference>().ok());
                gate.names.extend(name.map(|name| (path.to_owned(), name)));
                // Without them the gate refuses what needs some.
                let _ = add_signatures(&mut gate, &store, image.digest());
            }
            gate.open(path)
        })
    }
}

/// The name by which an image of the store was asked for, and the signatures that came with it.
///
/// # Errors
/// The store can't be read.
pub fn know(gate: &mut Gate, asked: &Path, path: &Path, store: &Store) -> Outcome {
    let Some(asked) = registries::name_of(asked) else { return Ok(()) };
    let image = store.find(asked).map_err(|error| Failure::stored(&error))?;
    // The beginning of a digest is no name.
    let name = asked.parse::<Reference>().ok().filter(|name| image.answers(name));
    gate.names.extend(name.map(|name| (path.to_owned(), name)));
    add_signatures(gate, store, image.digest())
}

/// The signatures that came with an image of the store.
///
/// # Errors
/// The store can't be read.
fn add_signatures(gate: &mut Gate, store: &Store, digest: Digest) -> Outcome {
    for signature in signatures::stored(store, digest)? {
        // One by one: others may have put more there than an envelope holds.
        match Envelope::new(digest, Vec::new(), vec![signature]) {
            Ok(envelope) => gate.envelopes.push(envelope),
            Err(error) => tracing::warn!("a signature of {digest} is passed over: {error:#}"),
        }
    }
    Ok(())
}

fn named(path: &Path) -> Outcome<Envelope> {
    let envelope = read_envelope(path).map_err(|error| Failure::open(&error))?;
    envelope.ok_or_else(|| {
        let text = format!("--envelope {}: there is no such file", path.display());
        Failure::new(Exit::NotFound, "not-found", text)
    })
}

/// Keys of files that were named, each known by its file.
///
/// # Errors
/// One can't be read, or is none.
pub fn trusted(files: &[PathBuf]) -> Outcome<Vec<TrustedKey>> {
    let trusted = |path: &PathBuf| {
        let key = keys::public_key(path)?;
        Ok(TrustedKey { name: path.display().to_string(), key })
    };
    files.iter().map(trusted).collect()
}

/// Read a policy; the keys that it names are beside it.
///
/// # Errors
/// It can't be read, or has mistakes: all of them.
pub fn read(path: &Path) -> Outcome<Policy> {
    read_whole(path).map(|(policy, _)| policy)
}

/// As [`read`], with the policy's text that has its keys in it.
///
/// # Errors
/// As [`read`].
pub fn read_whole(path: &Path) -> Outcome<(Policy, String)> {
    let text = keys::read(path)?;
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let load = |file: &str| std::fs::read_to_string(folder.join(file));
    Policy::embed(&text, path, &load).map_err(|errors| mistakes(&errors))
}

/// A policy with mistakes.
pub fn mistakes(errors: &ManifestErrors) -> Failure {
    let mistakes = serde_json::to_value(errors.mistakes()).unwrap_or_default();
    Failure::new(Exit::BadData, "bad-policy", errors)
        .detail("mistakes", mistakes)
        .help("see docs/signing.md for every key of a policy")
}
