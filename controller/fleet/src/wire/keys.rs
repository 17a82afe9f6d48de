//! The keys that a site believes, and how they change: by a list that a key of the list before has
//! signed. A message carries the last few changes, so a site that missed some catches up.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use wick_package::signature::{KeyId, PrivateKey, PublicKey, pae};

use crate::wire::refusal::Refusal;

/// Most keys of a list: the one in use, the next, and some to spare.
pub const MAX_KEYS: usize = 8;

/// Most changes in one message. A site that missed more needs to enrol again.
pub const MAX_CHANGES: usize = 8;

/// The type that signatures of lists are for. No message has it.
const TYPE: &str = "application/vnd.wick.fleet.keys.v1+json";

/// The keys that are believed. The serial counts changes: an older list never comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "List", into = "List")]
pub struct KeyRing {
    serial: u64,
    keys: Vec<PublicKey>,
}

/// The next list of keys, signed with one of the list before.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeyChange {
    key: String,
    signature: String,
    list: Box<RawValue>,
}

#[derive(Debug, Serialize, Deserialize)]
struct List {
    serial: u64,
    keys: Vec<String>,
}

// === impl KeyRing ===

impl KeyRing {
    /// The keys that a site is enrolled with.
    ///
    /// # Errors
    /// There is none, or there are too many.
    pub fn new(serial: u64, keys: Vec<PublicKey>) -> Result<Self, Refusal> {
        match keys.len() {
            0 => Err(Refusal::Keys("it has no key")),
            1..=MAX_KEYS => Ok(Self { serial, keys }),
            _ => Err(Refusal::Keys("it has too many keys")),
        }
    }

    pub fn serial(&self) -> u64 {
        self.serial
    }

    pub fn find(&self, id: KeyId) -> Option<&PublicKey> {
        self.keys.iter().find(|key| key.id() == id)
    }

    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    /// What is believed after these changes. Those that this ring has seen are passed over.
    ///
    /// # Errors
    /// A change is not by a key of the list before it, or one between is missing.
    pub fn after(&self, changes: &[KeyChange]) -> Result<Self, Refusal> {
        if changes.len() > MAX_CHANGES {
            return Err(Refusal::Keys("there are too many changes"));
        }
        let mut ring = self.clone();
        for change in changes {
            let list: List = serde_json::from_str(change.list.get())
                .map_err(|_| Refusal::Keys("it is no list of keys"))?;
            if list.serial <= ring.serial {
                continue;
            }
            if list.serial != ring.serial + 1 {
                return Err(Refusal::Keys("a change between is missing: enrol this site again"));
            }
            let signer = change.key.parse().ok().and_then(|id| ring.find(id));
            let signer = signer.ok_or(Refusal::Keys("its signer is not in the list before"))?;
            let signature = BASE64_STANDARD.decode(&change.signature).unwrap_or_default();
            if !signer.verifies(&message(&change.key, change.list.get()), &signature) {
                return Err(Refusal::Keys("its signature is not the key's"));
            }
            ring = list.try_into()?;
        }
        Ok(ring)
    }

    /// The change that replaces this ring's keys, signed with one of them.
    ///
    /// # Errors
    /// The signer is none of them, or there are too many keys.
    pub fn change(&self, keys: Vec<PublicKey>, signer: &PrivateKey) -> Result<KeyChange, Refusal> {
        if self.find(signer.public().id()).is_none() {
            return Err(Refusal::Keys("its signer is not in the list before"));
        }
        let next = Self::new(self.serial + 1, keys)?;
        let list = serde_json::value::to_raw_value(&List::from(next))
            .map_err(|error| Refusal::Malformed(error.to_string()))?;
        let key = signer.public().id().to_string();
        let signature = BASE64_STANDARD.encode(signer.sign(&message(&key, list.get())));
        Ok(KeyChange { key, signature, list })
    }
}

// === impl List ===

impl From<KeyRing> for List {
    fn from(ring: KeyRing) -> Self {
        Self { serial: ring.serial, keys: ring.keys.iter().map(PublicKey::to_pem).collect() }
    }
}

impl TryFrom<List> for KeyRing {
    type Error = Refusal;

    fn try_from(list: List) -> Result<Self, Refusal> {
        if list.keys.len() > MAX_KEYS {
            return Err(Refusal::Keys("it has too many keys"));
        }
        let keys: Result<_, _> = list.keys.iter().map(|pem| PublicKey::from_pem(pem)).collect();
        Self::new(list.serial, keys.map_err(|_| Refusal::Keys("a key is damaged"))?)
    }
}

/// What is signed of a list.
fn message(key: &str, list: &str) -> Vec<u8> {
    pae(&format!("{TYPE}; key={key}"), list.as_bytes())
}
