//! Which versions of a model are loaded: a decision over their numbers, and nothing else.

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;

use semver::Version;

/// Which versions of each model a server loads. The others are known, and unloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionPolicy {
    /// The newest ones.
    Latest(NonZeroUsize),
    All,
    /// These, as far as they are there.
    Listed(Vec<Version>),
}

/// A text that is no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no version policy: write latest, latest:2, all, or versions as in 1.0.0,1.2.0")]
pub struct PolicyError(String);

// === impl VersionPolicy ===

impl VersionPolicy {
    /// Say of each of these versions whether it is to be loaded.
    pub fn choose(&self, versions: &[&Version]) -> Vec<bool> {
        match self {
            Self::All => vec![true; versions.len()],
            Self::Listed(listed) => {
                versions.iter().map(|version| listed.contains(version)).collect()
            }
            Self::Latest(most) => {
                let newer =
                    |than: &Version| versions.iter().filter(|version| **version > than).count();
                versions.iter().map(|version| newer(version) < most.get()).collect()
            }
        }
    }
}

impl Default for VersionPolicy {
    /// Triton's default: the newest one.
    fn default() -> Self {
        Self::Latest(NonZeroUsize::MIN)
    }
}

impl FromStr for VersionPolicy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let wrong = || PolicyError(text.to_owned());
        match text {
            "all" => return Ok(Self::All),
            "latest" => return Ok(Self::default()),
            _ => {}
        }
        if let Some(most) = text.strip_prefix("latest:") {
            return most.parse().map(Self::Latest).map_err(|_| wrong());
        }
        let listed: Result<Vec<Version>, _> =
            text.split(',').map(|version| version.trim().parse()).collect();
        listed.map(Self::Listed).map_err(|_| wrong())
    }
}

impl fmt::Display for VersionPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Latest(most) => write!(f, "latest:{most}"),
            Self::Listed(listed) => {
                let texts: Vec<_> = listed.iter().map(Version::to_string).collect();
                f.write_str(&texts.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(policy: &str, versions: &[&str], want: &[&str]) {
        let policy: VersionPolicy = policy.parse().unwrap();
        assert_eq!(policy.to_string().parse(), Ok(policy.clone()), "it is read as it is written");
        let all: Vec<Version> = versions.iter().map(|version| version.parse().unwrap()).collect();
        let chosen = policy.choose(&all.iter().collect::<Vec<_>>());
        let got = versions.iter().zip(chosen).filter_map(|(version, yes)| yes.then_some(*version));
        assert_eq!(got.collect::<Vec<_>>(), want, "{policy}");
    }

    #[test]
    fn the_newest_are_known_by_their_numbers_and_not_by_their_order() {
        let all = ["1.10.0", "1.9.0", "2.0.0-rc.1", "1.2.0"];
        check("latest", &all, &["2.0.0-rc.1"]);
        check("latest:2", &all, &["1.10.0", "2.0.0-rc.1"]);
        check("latest:9", &all, &all);
        check("latest", &["2.0.0-rc.1", "2.0.0"], &["2.0.0"]);
        check("latest", &[], &[]);
    }

    #[test]
    fn listed_versions_are_loaded_if_they_are_there() {
        check("all", &["1.0.0", "2.0.0"], &["1.0.0", "2.0.0"]);
        check("1.0.0, 3.0.0", &["1.0.0", "2.0.0"], &["1.0.0"]);
    }

    #[test]
    fn what_is_no_policy_is_refused_with_what_would_be_one() {
        for bad in ["", "latest:0", "latest:", "latest:x", "newest", "1", "1.0.0,", "ALL"] {
            let error = bad.parse::<VersionPolicy>().unwrap_err();
            assert!(error.to_string().contains("latest:2"), "{bad}");
        }
    }
}
