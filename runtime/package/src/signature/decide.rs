//! Whether an image may run: a pure function of the policy, the image's name and digest, and the
//! signatures that were found for it.

use std::collections::BTreeSet;
use std::fmt;

use crate::digest::Digest;
use crate::reason::Reason;
use crate::reference::Reference;
use crate::signature::error::SignatureError;
use crate::signature::policy::{Otherwise, Pattern, Policy, Rule};
use crate::signature::signed::{Claim, Signature};

/// Most signatures that an error message speaks of.
const MAX_TOLD: usize = 4;

/// An image that somebody wants to run.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The name by which it was asked for.
    pub image: &'a Reference,
    /// Whether that name is only what the image says of itself. Then nothing but a signature for
    /// it counts: an image could call itself what needs none.
    pub self_named: bool,
    /// Of its index, or of its manifest where there is no index.
    pub digest: Digest,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It may run: the names of the keys that count, none where none is needed, and what the
    /// first signature says.
    Allowed {
        by: Vec<String>,
        claim: Option<Claim>,
    },
    Refused(Refusal),
}

/// Why an image may not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The name pins another digest.
    Pinned {
        image: String,
        digest: Digest,
    },
    NoRule {
        image: String,
    },
    /// Nobody says what it is called.
    NoName {
        digest: Digest,
    },
    /// Its own word is not enough.
    SelfNamed {
        image: String,
    },
    /// Too few signatures count.
    Unsigned {
        image: String,
        digest: Digest,
        keys: Vec<String>,
        min: usize,
        by: Vec<String>,
        /// Why the others don't count.
        faults: Vec<String>,
        /// A signature that holds was for another digest or name.
        misplaced: bool,
    },
}

/// A signature that does not count.
struct Fault {
    why: String,
    misplaced: bool,
}

// === impl Policy ===

impl Policy {
    /// Decide about an image.
    pub fn decide(&self, request: &Request<'_>, signatures: &[Signature]) -> Decision {
        let Request { image, digest, .. } = *request;
        if image.digest().is_some_and(|pinned| pinned != digest) {
            return Decision::Refused(Refusal::Pinned { image: image.to_string(), digest });
        }
        let Some(rule) = self.rule(&image.name()) else {
            let image = image.to_string();
            return match self.default {
                // A policy that wants signatures could be left by any other name.
                Otherwise::Allow if request.self_named && self.wants_signatures() => {
                    Decision::Refused(Refusal::SelfNamed { image })
                }
                Otherwise::Allow => Decision::Allowed { by: Vec::new(), claim: None },
                Otherwise::Deny => Decision::Refused(Refusal::NoRule { image }),
            };
        };
        if rule.min == 0 && request.self_named {
            return Decision::Refused(Refusal::SelfNamed { image: image.to_string() });
        }
        self.count(rule, request, signatures)
    }

    fn count(&self, rule: &Rule, request: &Request<'_>, signatures: &[Signature]) -> Decision {
        let mut by = BTreeSet::new();
        let mut first = None;
        let mut faults = Vec::new();
        // Needed by none, they are not looked at.
        for signature in signatures.iter().filter(|_| rule.min > 0) {
            match self.check(rule, request, signature) {
                Ok((claim, keys)) => {
                    by.extend(keys);
                    first.get_or_insert(claim);
                }
                Err(fault) => faults.push(fault),
            }
        }
        let by: Vec<String> = by.into_iter().map(|at: usize| self.keys[at].name.clone()).collect();
        if by.len() >= rule.min {
            return Decision::Allowed { by, claim: first };
        }
        let misplaced = faults.iter().any(|fault| fault.misplaced);
        Decision::Refused(Refusal::Unsigned {
            image: request.image.to_string(),
            digest: request.digest,
            keys: self.key_names(rule).into_iter().map(str::to_owned).collect(),
            min: rule.min,
            by,
            faults: faults.into_iter().map(|fault| fault.why).collect(),
            misplaced,
        })
    }

    /// What a signature says, and which of the rule's keys have made it.
    fn check(
        &self,
        rule: &Rule,
        request: &Request<'_>,
        signature: &Signature,
    ) -> Result<(Claim, Vec<usize>), Fault> {
        let keys = rule.keys.iter().map(|&at| &self.keys[at].key);
        let (claim, by) = signature.verify(request.digest, keys).map_err(|error| Fault {
            misplaced: matches!(error, SignatureError::OtherDigest { .. }),
            why: error.to_string(),
        })?;
        check_name(rule, request, &claim).map_err(|why| Fault { why, misplaced: true })?;
        let is_by = |at: &usize| by.contains(&self.keys[*at].key.id());
        Ok((claim, rule.keys.iter().copied().filter(is_by).collect()))
    }
}

/// Whether what a signature says of the image's name is enough for a rule.
fn check_name(rule: &Rule, request: &Request<'_>, claim: &Claim) -> Result<(), String> {
    match &claim.image {
        Some(name) if is_for(name, &request.image.name(), &rule.signed_as) => Ok(()),
        Some(name) => {
            let name: String = name.chars().take(255).collect();
            Err(format!(
                "the signature is for the name `{}`: sign it for this one, or list that one in \
                 the rule's `signed_as`",
                name.escape_debug()
            ))
        }
        None if rule.nameless => Ok(()),
        // It would let whoever can push put the image in the place of any other of this key.
        None => {
            Err("the signature says no name, as those of cosign 3: sign it with `wick sign`, or \
                     write `nameless = true` in the rule, for any name that its keys may sign"
                .to_owned())
        }
    }
}

/// Whether a signature for `name` counts for a repository.
fn is_for(name: &str, repository: &str, signed_as: &[Pattern]) -> bool {
    // cosign writes names as they were typed.
    let Ok(name) = name.parse::<Reference>() else { return false };
    let name = name.name();
    name == repository || signed_as.iter().any(|pattern| pattern.matches(&name))
}

// === impl Refusal ===

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pinned { image, digest } => {
                write!(f, "{image} pins another digest than the image's, {digest}")
            }
            Self::NoRule { image } => write!(
                f,
                "no rule of the policy names {image}, and its default is to deny: add it to the \
                 `images` of a [[rule]]"
            ),
            Self::NoName { digest } => {
                write!(f, "{digest} has no name that a rule could name: give it with --name")
            }
            Self::SelfNamed { image } => write!(
                f,
                "the image calls itself {image}, for which the policy wants no signature, and its \
                 own word does not count: sign it for a name of a rule with keys; or say its name, \
                 to `wick verify` with --name, and to `wick run` by pulling the image and running \
                 it by that name"
            ),
            Self::Unsigned { image, digest, keys, min, by, faults, .. } => {
                write!(f, "{image} ({digest}) ")?;
                match (faults.is_empty(), by.len()) {
                    (true, 0) => f.write_str("is not signed")?,
                    (false, 0) => f.write_str("has no signature that counts")?,
                    (_, have) => {
                        let s = if have == 1 { "" } else { "s" };
                        write!(
                            f,
                            "has {have} signature{s} that count{}",
                            if have == 1 { "s" } else { "" }
                        )?;
                        write!(f, ", by {}", by.join(", "))?;
                    }
                }
                match *min {
                    1 => write!(f, "; the policy wants one by {}", keys.join(" or "))?,
                    min => write!(f, "; the policy wants {min} of {}", keys.join(", "))?,
                }
                faults.iter().take(MAX_TOLD).try_for_each(|fault| write!(f, "; {fault}"))?;
                match faults.len().saturating_sub(MAX_TOLD) {
                    0 => Ok(()),
                    more => write!(f, "; and {more} more"),
                }
            }
        }
    }
}

impl std::error::Error for Refusal {}

impl Reason for Refusal {
    fn code(&self) -> &'static str {
        match self {
            Self::Pinned { .. } => "digest-mismatch",
            Self::NoRule { .. } | Self::NoName { .. } | Self::SelfNamed { .. } => "policy-denies",
            Self::Unsigned { misplaced: true, .. } => "signature-for-another",
            Self::Unsigned { faults, .. } if !faults.is_empty() => "signature-by-another",
            Self::Unsigned { .. } => "unsigned",
        }
    }
}
