//! Opening packages under a policy: first the documents, then the decision, and only then
//! anything of the package.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::layout::{ImageDocuments, LayoutError};
use crate::open_error::OpenError;
use crate::package::Package;
use crate::reference::Reference;
use crate::signature::decide::{Decision, Refusal, Request};
use crate::signature::envelope::{Envelope, MAX_ENVELOPE};
use crate::signature::policy::Policy;
use crate::signature::signed::{Claim, Signature};
use crate::signature::store::NodeStore;

/// Why a package may run.
#[derive(Debug, Clone)]
pub struct Admitted {
    /// The name that decided.
    pub image: String,
    /// The names of the keys that count; none where none is needed.
    pub by: Vec<String>,
    pub claim: Option<Claim>,
}

/// What is added to the name of an image's file for that of its envelope.
const BESIDE: &str = ".envelope.json";

/// A policy, and where signatures are found for it.
#[derive(Debug, Clone)]
pub struct Gate {
    pub policy: Policy,
    /// Envelopes that were named; those for other images are passed over.
    pub envelopes: Vec<Envelope>,
    /// A node's store, if it has one.
    pub store: Option<NodeStore>,
    /// The name by which every image is asked for, and that of each path. Without one it is left to
    /// the image's own word and its signatures.
    pub name: Option<Reference>,
    pub names: BTreeMap<PathBuf, Reference>,
}

/// Where the envelope of an image's file or folder lies, unless it is named.
pub fn envelope_beside(image: &Path) -> PathBuf {
    // `layout/` is `layout`.
    let mut name: std::ffi::OsString = image.components().as_path().into();
    name.push(BESIDE);
    name.into()
}

// === impl Gate ===

impl Gate {
    /// Open a package if the policy lets it run. All its bytes are hashed then: a signature is
    /// for the bytes, and nobody else has compared them.
    ///
    /// # Errors
    /// The policy refuses it, it is not packed, or it can't be opened.
    pub fn open(&self, path: &Path) -> Result<Package, OpenError> {
        self.admit(path).map(|(package, _)| package)
    }

    /// As [`Gate::open`], and say why it may run.
    ///
    /// # Errors
    /// As [`Gate::open`].
    pub fn admit(&self, path: &Path) -> Result<(Package, Admitted), OpenError> {
        let image = ImageDocuments::read(path)?;
        let refused = |refusal| OpenError::Refused { path: path.to_owned(), source: refusal };
        let asked = self.name.as_ref().or_else(|| self.names.get(path));
        let name = asked.or(image.name.as_ref()).cloned();
        let nameless = Refusal::NoName { digest: image.digest };
        let name = name.ok_or_else(|| refused(Box::new(nameless)))?;
        let request = Request { image: &name, self_named: asked.is_none(), digest: image.digest };
        let decision = self.policy.decide(&request, &self.signatures(path, image.digest)?);
        let admitted = match decision {
            Decision::Allowed { by, claim } => Admitted { image: name.to_string(), by, claim },
            Decision::Refused(refusal) => return Err(refused(Box::new(refusal))),
        };
        let package = Package::open(path)?;
        if package.digest() != image.digest {
            let (want, got) = (image.digest, package.digest());
            let source = LayoutError::Digest { what: "its image".to_owned(), want, got };
            return Err(OpenError::Layout { path: path.to_owned(), source });
        }
        Ok((package.sealed()?, admitted))
    }

    /// Every signature that is found for an image: named, beside it, and the node's.
    ///
    /// # Errors
    /// The envelope beside it or the node's can't be read.
    pub fn signatures(&self, path: &Path, digest: Digest) -> Result<Vec<Signature>, OpenError> {
        let named = self.envelopes.iter().filter(|envelope| envelope.digest() == digest);
        let mut found: Vec<_> = named.flat_map(|one| one.signatures().to_vec()).collect();
        let beside = envelope_beside(path);
        if let Some(envelope) = read_envelope(&beside)?.filter(|one| one.digest() == digest) {
            found.extend(envelope.signatures().to_vec());
        }
        if let Some(store) = &self.store {
            let envelope = store.get(digest).map_err(|source| OpenError::Signatures {
                path: path.to_owned(),
                source: Box::new(source),
            })?;
            found.extend(envelope.iter().flat_map(|envelope| envelope.signatures().to_vec()));
        }
        Ok(found)
    }
}

/// Read the file of an envelope; none where there is no such file.
///
/// # Errors
/// It can't be read, or is no envelope.
pub fn read_envelope(path: &Path) -> Result<Option<Envelope>, OpenError> {
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    let file = match std::fs::File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(io)?,
    };
    let mut bytes = Vec::new();
    // One more than may be, so that what is too long is seen to be.
    file.take(MAX_ENVELOPE as u64 + 1).read_to_end(&mut bytes).map_err(io)?;
    let envelope = Envelope::from_json(&bytes);
    envelope.map(Some).map_err(|source| OpenError::Envelope { path: path.to_owned(), source })
}
