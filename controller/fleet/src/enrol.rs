//! How a site joins a fleet, and how it stays in it: what is sent over HTTPS before there is a certificate
//! for the broker, and when it is renewed.
//!
//! ```text
//!  site: key, signing request ──token──▶ POST /v1/enrol ──▶ certificate, CA, keys, broker
//!  site: the same key         ──signed─▶ POST /v1/renew ──▶ the same, with a later end
//! ```
//!
//! A site's key is ed25519 and never leaves it. The same key is in its certificate and seals its messages.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use wick_package::signature::{PrivateKey, PublicKey, pae};

use crate::names::SiteName;
use crate::wire::KeyRing;

/// Where a site enrols.
pub const ENROL: &str = "/v1/enrol";

/// Where a site renews its certificate.
pub const RENEW: &str = "/v1/renew";

/// Longest request: a signing request has 500 bytes, 64 labels 8 KiB.
pub const MAX_REQUEST: usize = 32 << 10;

/// Seconds that the clocks of a site and of the hub may differ by when a certificate is renewed.
pub const MAX_SKEW: u64 = 600;

/// The name of the hub at the broker, which no site may have.
pub const HUB: &str = "hub";

/// What signatures of renewals are for. No message has this type.
const RENEWAL: &str = "application/vnd.wick.fleet.renew.v1";

/// A site asks to belong to the fleet. The same request again gets the same answer, as long as its token
/// is not expired: an answer may be lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolRequest {
    pub site: SiteName,
    /// For one site, once.
    pub token: String,
    /// PEM; an ed25519 key, and the site's name as common name.
    pub csr: String,
    pub place: Claim,
}

/// What a site says of itself. The policy has the last word.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Claim {
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The rule of its time zone as POSIX writes it; UTC where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    pub memory: u64,
    pub disk: u64,
}

/// A site belongs to the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// PEM, the site's own first.
    pub certificate: String,
    /// Whom the broker's certificate is signed by, PEM.
    pub ca: String,
    /// The hub's keys, which sign what the site is to have.
    pub ring: KeyRing,
    /// `mqtts://HOST:PORT`, or `mqtt://` where the fleet has no TLS.
    pub broker: String,
    /// When the certificate ends, in seconds since 1970.
    pub not_after: u64,
}

/// A site asks for its next certificate, for the same key. A new key is a new enrolment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewRequest {
    pub site: SiteName,
    pub csr: String,
    /// By the site's clock, in seconds since 1970.
    pub at: u64,
    /// By the site's key, over all of the above; base64.
    pub signature: String,
}

/// Why a request was refused. The code stays the same, the message is for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `token`, `enrolled`, `csr`, `name`, `place`, `unknown`, `revoked`, `clock`, `signature`, `malformed`,
    /// `busy` or `internal`.
    pub code: String,
    pub message: String,
}

// === impl RenewRequest ===

impl RenewRequest {
    pub fn new(site: SiteName, csr: String, at: u64, key: &PrivateKey) -> Self {
        let signature = BASE64_STANDARD.encode(key.sign(&signed(&site, at, &csr)));
        Self { site, csr, at, signature }
    }

    /// Whether the holder of this key has asked for it.
    #[must_use]
    pub fn is_by(&self, key: &PublicKey) -> bool {
        let signature = BASE64_STANDARD.decode(&self.signature).unwrap_or_default();
        key.verifies(&signed(&self.site, self.at, &self.csr), &signature)
    }
}

/// What is signed: neither a name nor a number has a line's end in it.
fn signed(site: &SiteName, at: u64, csr: &str) -> Vec<u8> {
    pae(RENEWAL, format!("{site}\n{at}\n{csr}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renewal_is_the_sites_own_and_for_this_request_only() {
        let key = PrivateKey::from_seed(&[7; 32]);
        let site: SiteName = "plant-3".parse().unwrap();
        let request = RenewRequest::new(site, "csr".to_owned(), 5, &key);
        assert!(request.is_by(&key.public()));
        assert!(!request.is_by(&PrivateKey::from_seed(&[8; 32]).public()));
        assert!(!RenewRequest { at: 6, ..request.clone() }.is_by(&key.public()));
        assert!(!RenewRequest { csr: "other".to_owned(), ..request }.is_by(&key.public()));
    }
}
