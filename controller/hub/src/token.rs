//! Tokens: of people and programs, with a role, and of sites, for one enrolment. Only hashes are kept.

use std::fs::File;
use std::io::{self, Read as _};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use wick_fleet::{Moment, SiteName};
use wick_package::signature::KeyId;

/// Random bytes of a token: nobody guesses 256 bits.
const BYTES: usize = 32;

/// What tokens begin with, so that a scanner recognises one that leaked.
const PREFIX: &str = "wick_";

/// Where the system gives random bytes.
const RANDOM: &str = "/dev/urandom";

/// What is kept of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Whose it is: a person's, a program's, or the site's.
    pub name: String,
    pub expires: Moment,
    pub grant: Grant,
}

/// What it is good for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grant {
    Role(Role),
    Enrol {
        site: SiteName,
        /// The site may be enrolled already.
        again: bool,
        /// The key that was enrolled by it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        used: Option<String>,
    },
}

/// Who may do what: each may do what those before may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Sees everything but tokens and the audit.
    Viewer,
    /// Gives orders to rollouts, and lets sites enrol.
    Operator,
    /// Makes tokens, revokes sites, reads the audit.
    Admin,
}

/// Random bytes from the system.
///
/// # Errors
/// It gives none.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open(RANDOM)?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// A new token's text, which nothing keeps.
///
/// # Errors
/// The system gives no random bytes.
pub fn make() -> io::Result<String> {
    Ok(format!("{PREFIX}{}", hex(&random::<BYTES>()?)))
}

/// What a token is kept by.
pub fn hash(text: &str) -> String {
    hex(&Sha256::digest(text.trim()))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

// === impl Role ===

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

// === impl Token ===

impl Token {
    /// The role that it gives, if it holds.
    pub fn role(&self, now: Moment) -> Option<Role> {
        match self.grant {
            Grant::Role(role) if now < self.expires => Some(role),
            _ => None,
        }
    }

    /// The site that may enrol by it, whether it may be enrolled already, and by which key it was used.
    pub fn enrols(&self, now: Moment) -> Option<(&SiteName, bool, Option<KeyId>)> {
        match &self.grant {
            Grant::Enrol { site, again, used } if now < self.expires => {
                Some((site, *again, used.as_deref().and_then(|id| id.parse().ok())))
            }
            _ => None,
        }
    }
}
