//! The AppArmor profile that the worker changes to.
//!
//! It is opened while the node's `/proc` is there and written after the root has changed,
//! since a profile for containers forbids to mount.

use std::fs::{File, OpenOptions};
use std::io::Write as _;

use crate::error::{LockdownError, Step as _};

/// The profile that is none.
const UNCONFINED: &str = "unconfined";

/// Where a process changes its profile: the file of AppArmor alone, and the older one that
/// security modules share.
const FILES: [&str; 2] = ["/proc/self/attr/apparmor/current", "/proc/self/attr/current"];

/// Whether AppArmor is on.
const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";

/// A profile to change to.
pub(crate) struct Profile {
    name: String,
    file: File,
}

// === impl Profile ===

impl Profile {
    /// Prepare to change to a profile. None if none is asked for.
    pub(crate) fn open(name: Option<&str>) -> Result<Option<Self>, LockdownError> {
        let Some(name) = name.filter(|name| !name.is_empty() && *name != UNCONFINED) else {
            return Ok(None);
        };
        let enabled = std::fs::read_to_string(ENABLED).unwrap_or_default();
        if !enabled.starts_with('Y') {
            return Err(LockdownError::refused(
                format!("the AppArmor profile `{name}`"),
                "this node has no AppArmor: set the pod's profile to Unconfined, or use a node \
                 that has it",
            ));
        }
        let open = |path: &&str| OpenOptions::new().write(true).open(path);
        let mut opened = open(&FILES[0]);
        if opened.is_err() {
            opened = open(&FILES[1]);
        }
        let file = opened.step(|| format!("open {} for the AppArmor profile", FILES[0]))?;
        Ok(Some(Self { name: name.to_owned(), file }))
    }

    /// Change to it, for good.
    pub(crate) fn enter(mut self) -> Result<(), LockdownError> {
        // One write: the kernel takes it as one command.
        let command = format!("changeprofile {}", self.name);
        self.file
            .write_all(command.as_bytes())
            .step(|| format!("change to the AppArmor profile `{}`: is it loaded?", self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_profile_is_no_step_and_a_profile_without_apparmor_is_refused() {
        for none in [None, Some(""), Some("unconfined")] {
            assert!(Profile::open(none).unwrap().is_none());
        }
        if !std::path::Path::new(ENABLED).exists() {
            let error = Profile::open(Some("tight")).err().unwrap().to_string();
            assert!(error.contains("the AppArmor profile `tight` is refused"), "{error}");
        }
    }
}
