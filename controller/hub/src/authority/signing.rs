//! The key that signs what sites are to have, the list of keys that sites believe, and how that has changed. Which
//! key is in use is in one file, which is replaced at once.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use wick_fleet::wire::{KeyChange, KeyRing, MAX_CHANGES};
use wick_package::signature::PrivateKey;

use super::{AuthorityError, file, keep, replace};
use crate::token::{hex, random};

/// The list that a hub begins with, and the file of its key.
const FIRST_RING: u64 = 1;
const FIRST_KEY: &str = "signing.key";

/// Names of later ones.
const PREFIX: &str = "signing-";
const SUFFIX: &str = ".key";

/// Which key is in use, once it was changed.
const KEYS: &str = "keys.json";

/// A key in use.
pub struct Signing {
    pub key: PrivateKey,
    /// What a site is enrolled with.
    pub ring: KeyRing,
    /// The last changes, for sites that missed some.
    pub changes: Vec<KeyChange>,
    file: String,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    file: String,
    ring: KeyRing,
    changes: Vec<KeyChange>,
}

// === impl Signing ===

impl Signing {
    pub(super) fn init(dir: &Path) -> Result<(), AuthorityError> {
        keep(&dir.join(FIRST_KEY), &new()?.to_pem(None)?)
    }

    pub(super) fn open(dir: &Path) -> Result<Self, AuthorityError> {
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read_to_string(&path).map_err(file(&path))
        };
        if !dir.join(KEYS).exists() {
            let key = PrivateKey::from_pem(&read(FIRST_KEY)?, None)?;
            let ring = KeyRing::new(FIRST_RING, vec![key.public()])?;
            return Ok(Self { key, ring, changes: Vec::new(), file: FIRST_KEY.to_owned() });
        }
        let kept: Kept = serde_json::from_str(&read(KEYS)?)?;
        let Kept { file, ring, changes } = kept;
        let key = PrivateKey::from_pem(&read(&file)?, None)?;
        Ok(Self { key, ring, changes, file })
    }

    /// Use a new key, which is on the disk when this returns; the old one is gone then.
    pub(super) fn rotate(&self, dir: &Path) -> Result<Self, AuthorityError> {
        let key = new()?;
        let change = self.ring.change(vec![key.public()], &self.key)?;
        let ring = self.ring.after(std::slice::from_ref(&change))?;
        let mut changes = self.changes.clone();
        changes.push(change);
        changes.drain(..changes.len().saturating_sub(MAX_CHANGES));
        // No two tries have one name, so that none takes away what another has put into use.
        let random: [u8; 4] = random().map_err(file(Path::new("/dev/urandom")))?;
        let name = format!("{PREFIX}{}-{}{SUFFIX}", ring.serial(), hex(&random));
        keep(&dir.join(&name), &key.to_pem(None)?)?;
        let kept = Kept { file: name.clone(), ring: ring.clone(), changes: changes.clone() };
        replace(&dir.join(KEYS), &serde_json::to_string(&kept)?)?;
        let next = Self { key, ring, changes, file: name };
        next.tidy(dir);
        Ok(next)
    }

    /// Remove all signing keys but the one in use.
    pub(super) fn tidy(&self, dir: &Path) {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        for name in entries.map(|entry| entry.file_name().to_string_lossy().into_owned()) {
            let is_key = name.starts_with(PREFIX) && name.ends_with(SUFFIX) || name == FIRST_KEY;
            if !is_key || name == self.file {
                continue;
            }
            match fs::remove_file(dir.join(&name)) {
                Ok(()) => tracing::info!(name, "a signing key that is not in use is removed"),
                Err(error) => tracing::warn!(%error, name, "remove this key yourself"),
            }
        }
    }
}

fn new() -> Result<PrivateKey, AuthorityError> {
    Ok(PrivateKey::from_seed(&random().map_err(file(Path::new("/dev/urandom")))?))
}
