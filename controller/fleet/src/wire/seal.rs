//! The seal: who says it, about which site and generation, on which topic; and the signature over
//! all of that and the bytes of the body as they are sent.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use wick_package::signature::{KeyId, PrivateKey, pae};

use crate::names::Generation;
use crate::wire::keys::{KeyChange, KeyRing};
use crate::wire::message::{Desired, Observed, Presence, Telemetry};
use crate::wire::refusal::{Refusal, shown};
use crate::wire::topic::{Channel, Topic};

/// The version of messages that is written, and the only one that is read.
pub const VERSION: u64 = 1;

/// Longest message. 64 models with long names have 30 KiB, eight changes of eight keys 14 KiB.
pub const MAX_MESSAGE: usize = 64 << 10;

const TYPE: &str = "application/vnd.wick.fleet.v1+json";

/// What can be said on a channel.
pub trait Body: Serialize + DeserializeOwned {
    const CHANNEL: Channel;
}

/// A message whose seal holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened<B> {
    pub generation: Generation,
    pub body: B,
    /// What is believed from now on: the ring that it was opened with, after the message's changes.
    pub ring: KeyRing,
}

#[derive(Serialize, Deserialize)]
struct Sealed {
    version: u64,
    site: String,
    generation: Generation,
    key: String,
    signature: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    keys: Vec<KeyChange>,
    body: Box<RawValue>,
}

/// Enough of any version to say which it is.
#[derive(Deserialize)]
struct Kind {
    version: u64,
}

/// What is signed: DSSE's encoding, with topic, site, generation and key in the type.
fn signed(topic: &Topic, generation: Generation, key: KeyId, body: &str) -> Vec<u8> {
    let site = &topic.site;
    let kind = format!("{TYPE}; topic={topic}; site={site}; generation={generation}; key={key}");
    pae(&kind, body.as_bytes())
}

/// The bytes of a message for this topic's site.
///
/// # Errors
/// It would be longer than a message may be.
pub fn seal<B: Body>(
    topic: &Topic,
    generation: Generation,
    body: &B,
    signer: &PrivateKey,
    changes: &[KeyChange],
) -> Result<Vec<u8>, Refusal> {
    let malformed = |error: serde_json::Error| Refusal::Malformed(error.to_string());
    let body = serde_json::value::to_raw_value(body).map_err(malformed)?;
    let key = signer.public().id();
    let signature = signer.sign(&signed(topic, generation, key, body.get()));
    let sealed = Sealed {
        version: VERSION,
        site: topic.site.as_str().to_owned(),
        generation,
        key: key.to_string(),
        signature: BASE64_STANDARD.encode(signature),
        keys: changes.to_vec(),
        body,
    };
    let bytes = serde_json::to_vec(&sealed).map_err(malformed)?;
    match bytes.len() {
        0..=MAX_MESSAGE => Ok(bytes),
        size => Err(Refusal::Long { size, most: MAX_MESSAGE }),
    }
}

/// Read a message that came by a topic, if one of the ring's keys has signed it for that topic.
///
/// # Errors
/// Why it is not believed or not understood.
pub fn open<B: Body>(topic: &Topic, bytes: &[u8], ring: &KeyRing) -> Result<Opened<B>, Refusal> {
    if bytes.len() > MAX_MESSAGE {
        return Err(Refusal::Long { size: bytes.len(), most: MAX_MESSAGE });
    }
    let malformed = |error: serde_json::Error| Refusal::Malformed(shown(&error.to_string()));
    // The version first: of another one nothing else is known.
    let kind: Kind = serde_json::from_slice(bytes).map_err(malformed)?;
    if kind.version != VERSION {
        return Err(Refusal::Version(kind.version));
    }
    let sealed: Sealed = serde_json::from_slice(bytes).map_err(malformed)?;
    if topic.channel != B::CHANNEL || sealed.site != topic.site.as_str() {
        return Err(Refusal::OtherTopic(shown(&sealed.site)));
    }
    let ring = ring.after(&sealed.keys)?;
    let unknown = || Refusal::Key(shown(&sealed.key));
    let id: KeyId = sealed.key.parse().map_err(|_| unknown())?;
    let key = ring.find(id).ok_or_else(unknown)?;
    let signature = BASE64_STANDARD.decode(&sealed.signature).unwrap_or_default();
    if !key.verifies(&signed(topic, sealed.generation, id, sealed.body.get()), &signature) {
        return Err(Refusal::Signature);
    }
    let body = serde_json::from_str(sealed.body.get()).map_err(malformed)?;
    Ok(Opened { generation: sealed.generation, body, ring })
}

// === impl Body ===

impl Body for Desired {
    const CHANNEL: Channel = Channel::Desired;
}

impl Body for Observed {
    const CHANNEL: Channel = Channel::Observed;
}

impl Body for Presence {
    const CHANNEL: Channel = Channel::Presence;
}

impl Body for Telemetry {
    const CHANNEL: Channel = Channel::Telemetry;
}
