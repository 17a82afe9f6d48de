//! Whether a package may run here: the node's policy, the signatures that its pod or the node
//! has, and whether the files that were mounted are the signed ones.
//!
//! ```text
//!  name (containerd's) ─▶ rule ─ none needed ─▶ run
//!                          └─ envelopes: annotation, store by digest, store by wick.toml
//!                               └─ signatures ─▶ documents ─▶ files == root file system ─▶ run
//! ```
//!
//! An envelope is only a claim until its documents, which the signature holds for, list exactly
//! the files that are mounted. So it matters to nobody who wrote the annotation. Without a
//! policy nothing here is done.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use containerd_shim::protos::types::mount::Mount;
use rustix::process::geteuid;
use wick_package::signature::{
    Decision, Envelope, MAX_POLICY, NodeStore, Otherwise, Policy, Request, Rule, Stored, is_absent,
    read_trusted,
};
use wick_package::{Digest, MANIFEST_FILE, Reference, error_text};
use wick_sandbox::order::Order;

use crate::rootfs;
use crate::seal::{self, Sealed};

/// Longest file of a public key.
const MAX_KEY: u64 = 8 << 10;

/// Longest `wick.toml`, by which the store is asked.
const MAX_MANIFEST: u64 = 1 << 20;

/// What a container's creation says of its image.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// By which name the pod asked for it, as containerd tells.
    pub image: Option<String>,
    /// The annotation `wick.dev/signature`.
    pub envelope: Option<String>,
}

/// Where the node has its policy and its signatures.
#[derive(Debug, Clone)]
pub struct Place {
    pub policy: PathBuf,
    /// Named by the node's owner: then it must be there.
    pub named: bool,
    pub signatures: PathBuf,
    /// Where what was hashed is remembered.
    pub checked: Option<PathBuf>,
}

/// Why a package does not run.
#[derive(Debug)]
pub struct Denied(String);

/// An envelope, and where it is from.
struct Candidate {
    from: &'static str,
    envelope: Envelope,
}

/// Whether a package's files had to be signed ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Nobody asks for a signature.
    Free,
    /// They are what was signed, and must be read where nothing is mounted over them.
    Sealed,
}

/// Check the package of a container, whose root file system is mounted.
///
/// # Errors
/// A policy is in force, and it does not let this package run, or can't be read.
pub fn check(
    place: &Place,
    asked: &Asked,
    order: &Order,
    mounts: &[Mount],
) -> Result<Admission, Denied> {
    let Some(policy) = read(place)? else { return Ok(Admission::Free) };
    let Some(name) = &asked.image else {
        if policy.default == Otherwise::Allow && !policy.wants_signatures() {
            return Ok(Admission::Free);
        }
        return Err(Denied(
            "containerd does not say which image the container has, so no rule of the policy can \
             name it: start it by Kubernetes"
                .to_owned(),
        ));
    };
    let image = name.parse::<Reference>().map_err(|error| Denied(error.to_string()))?;
    let rule = policy.rule(&image.name());
    let free = rule.map_or(policy.default == Otherwise::Allow, |rule: &Rule| rule.min == 0);
    if free {
        return Ok(Admission::Free);
    }
    let candidates = candidates(place, asked, &image, order)?;
    let mut reasons = Vec::new();
    for candidate in candidates {
        match candidate.check(&policy, &image, place, order, mounts) {
            Ok(by) => {
                tracing::info!(image = name.as_str(), by, "the policy lets it run");
                return Ok(Admission::Sealed);
            }
            Err(why) => reasons.push(format!("{} ({})", why, candidate.from)),
        }
    }
    if reasons.is_empty() {
        reasons.push(unsigned(&policy, &image, rule.is_some(), place));
    }
    Err(Denied(reasons.join("; ")))
}

/// The policy, if there is one.
fn read(place: &Place) -> Result<Option<Policy>, Denied> {
    let user = geteuid().as_raw();
    let denied =
        |error: &dyn std::error::Error| Denied(format!("the policy: {}", error_text(error)));
    // A link to nothing is no missing policy: somebody has meant one to be there.
    if !place.named && is_absent(&place.policy, user).map_err(|error| denied(&error))? {
        return Ok(None);
    }
    let text = read_trusted(&place.policy, user, MAX_POLICY).map_err(|error| denied(&error))?;
    let folder = place.policy.parent().unwrap_or_else(|| Path::new("/"));
    let load = |file: &str| {
        let read = read_trusted(&folder.join(file), user, MAX_KEY);
        read.map_err(|error| io::Error::other(error_text(&error)))
    };
    let policy = Policy::parse(&text, &place.policy, &load);
    policy.map(Some).map_err(|error| denied(&error))
}

/// All envelopes that may be the image's. One that is damaged hides no other.
fn candidates(
    place: &Place,
    asked: &Asked,
    image: &Reference,
    order: &Order,
) -> Result<Vec<Candidate>, Denied> {
    let mut found = Vec::new();
    if let Some(text) = &asked.envelope {
        let envelope = Envelope::from_json(text.as_bytes()).map_err(|error| {
            Denied(format!("the annotation wick.dev/signature: {}", error_text(&error)))
        })?;
        found.push(Candidate { from: "the pod's annotation", envelope });
    }
    let store = NodeStore::new(&place.signatures, geteuid().as_raw());
    let stored = match image.digest() {
        Some(digest) => store
            .get(digest)
            .map(|one| Stored { envelopes: one.into_iter().collect(), broken: vec![] }),
        None => match package_manifest(order) {
            Some(manifest) => store.by_package(manifest),
            None => Ok(Stored::default()),
        },
    };
    let mut broken = Vec::new();
    match stored {
        Ok(stored) => {
            let candidate = |envelope| Candidate { from: "the node's store", envelope };
            found.extend(stored.envelopes.into_iter().map(candidate));
            broken.extend(stored.broken);
        }
        Err(error) => broken.push(error),
    }
    for error in &broken {
        tracing::warn!("an envelope is passed over: {}", error_text(error));
    }
    match broken.first() {
        Some(error) if found.is_empty() => Err(Denied(error_text(error))),
        _ => Ok(found),
    }
}

/// The digest of the mounted `wick.toml`.
fn package_manifest(order: &Order) -> Option<Digest> {
    let file = Path::new(order.args.first()?);
    let file = file.ends_with(MANIFEST_FILE).then_some(file)?;
    let text = rootfs::read_text(&order.rootfs, file, MAX_MANIFEST).ok()?;
    Some(Digest::of(text.as_bytes()))
}

fn unsigned(policy: &Policy, image: &Reference, ruled: bool, place: &Place) -> String {
    if !ruled {
        return format!(
            "no rule of {} names {image}, and its default is to deny: add it to the `images` of a \
             [[rule]]",
            place.policy.display()
        );
    }
    let keys = policy.rule(&image.name()).map(|rule| policy.key_names(rule).join(" or "));
    format!(
        "{image} has no signature, and {} wants one by {}: sign it with `wick sign`, and give its \
         envelope, which `wick verify --out` writes, to the pod as its annotation \
         wick.dev/signature, or to the node with `wick verify --node` or `wick load`",
        place.policy.display(),
        keys.unwrap_or_default()
    )
}

// === impl Candidate ===

impl Candidate {
    /// Who has signed what is mounted.
    fn check(
        &self,
        policy: &Policy,
        image: &Reference,
        place: &Place,
        order: &Order,
        mounts: &[Mount],
    ) -> Result<String, String> {
        let digest = self.envelope.digest();
        let request = Request { image, self_named: false, digest };
        let by = match policy.decide(&request, self.envelope.signatures()) {
            Decision::Allowed { by, .. } => by.join(", "),
            Decision::Refused(refusal) => return Err(refusal.to_string()),
        };
        let files = self.envelope.files(architecture()).map_err(|error| error_text(&error))?;
        let mut why = String::new();
        for files in &files {
            let sealed = Sealed { files, order, mounts, checked: place.checked.as_deref() };
            match seal::check(&sealed) {
                Ok(()) => return Ok(by),
                Err(error) => {
                    why = format!("what runs is not what was signed as {digest}: {error}");
                }
            }
        }
        Err(why)
    }
}

/// The node's architecture as images spell it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

// === impl Denied ===

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the node's policy does not let this package run: {}", self.0)
    }
}

impl std::error::Error for Denied {}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn there_is_no_policy_only_where_nothing_has_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let policy = folder.path().join("wick/policy.toml");
        let place = |named| Place {
            policy: policy.clone(),
            named,
            signatures: folder.path().join("signatures"),
            checked: None,
        };
        assert!(read(&place(false)).unwrap().is_none());
        assert!(read(&place(true)).unwrap_err().to_string().contains("policy.toml can't be read"));
        fs::create_dir(folder.path().join("wick")).unwrap();
        assert!(read(&place(false)).unwrap().is_none());
        // Somebody has meant one to be there.
        symlink("/nothing/here", &policy).unwrap();
        assert!(read(&place(false)).unwrap_err().to_string().contains("policy.toml can't be read"));
        fs::remove_file(&policy).unwrap();
        // Somebody may have taken it away.
        let wick = folder.path().join("wick");
        fs::set_permissions(&wick, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(read(&place(false)).unwrap_err().to_string().contains("written by others"));
        fs::remove_dir(&wick).unwrap();
        symlink("/nothing/here", &wick).unwrap();
        assert!(read(&place(false)).is_err());
    }
}
