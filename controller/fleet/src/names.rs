//! Names of sites and rollouts, parsed once, and the numbers of generations.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;

/// Longest name: a DNS label, since names are parts of topics, of certificates and of objects.
pub const MAX_NAME: usize = 63;

/// Name of a site. It is one level of a topic and the site's user name at the broker, so it has no
/// character that means something to either.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SiteName(Box<str>);

/// Name of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RolloutName(Box<str>);

/// Counts what a site was told. Zero is a site that was told nothing yet.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(transparent)]
pub struct Generation(pub u64);

/// Text that is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not the name of a {what}: use 1 to 63 of a-z, 0-9 and `-`, starting and ending \
     with a letter or digit"
)]
pub struct NameError {
    what: &'static str,
    text: String,
}

/// The text of a name that was refused is shown up to here.
const SHOWN: usize = 80;

fn label(text: &str, what: &'static str) -> Result<Box<str>, NameError> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let edge = |b: Option<u8>| b.is_some_and(plain);
    let good = text.len() <= MAX_NAME
        && edge(text.bytes().next())
        && edge(text.bytes().last())
        && text.bytes().all(|b| plain(b) || b == b'-');
    if good {
        return Ok(text.into());
    }
    let text = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    Err(NameError { what, text })
}

// === impl SiteName, RolloutName ===

macro_rules! name {
    ($name:ident, $what:literal) => {
        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                label(text, $what).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(D::Error::custom)
            }
        }
    };
}

name!(SiteName, "site");
name!(RolloutName, "rollout");

// === impl Generation ===

impl Generation {
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
