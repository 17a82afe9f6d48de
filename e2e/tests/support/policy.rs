//! A policy in force on the cluster's node, with a key that tests sign with.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use wick_e2e::package;

/// The policy of a node that nobody has asked for one.
const OPEN: &str = "default = \"allow\"\n";

/// The node's policy, which goes back to what it was.
pub struct InForce<'a> {
    policy: &'a Path,
}

// === impl InForce ===

impl<'a> InForce<'a> {
    /// What `images` names wants a signature by the key `release` beside the policy; other
    /// suites' images are let run.
    pub fn new(policy: &'a Path, images: &str) -> anyhow::Result<Self> {
        let key = policy.with_file_name("release");
        if !key.with_extension("key").exists() {
            let key = key.to_str().context("the path is text")?;
            package::wick(&["key", "generate", key, "--no-passphrase"])?;
        }
        let rules = format!(
            "{OPEN}[[key]]\nname = \"release\"\nfile = \"release.pub\"\n\
             [[rule]]\nimages = [\"{images}\"]\nkeys = [\"release\"]\n"
        );
        fs::write(policy, rules).context("write the policy")?;
        Ok(Self { policy })
    }

    /// The private key.
    pub fn key(&self) -> String {
        self.policy.with_file_name("release.key").display().to_string()
    }

    pub fn public_key(&self) -> String {
        self.policy.with_file_name("release.pub").display().to_string()
    }
}

impl Drop for InForce<'_> {
    fn drop(&mut self) {
        // The test's own failure is the one to see.
        fs::write(self.policy, OPEN).ok();
    }
}
