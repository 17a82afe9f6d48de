//! Versions during whose loading the process ended. A model in a native backend may end it, and the
//! agent that starts again would load it again: after a few times it is left alone for a while.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use wick_package::Digest;

/// Loads that may end the process before a version is left alone.
const MOST: u32 = 3;

/// For how long. Then it may once more.
const REST: Duration = Duration::from_secs(3600);

/// A file with a count for each version that is being loaded. Loss of it is no harm.
pub struct Suspects {
    path: PathBuf,
}

// === impl Suspects ===

impl Suspects {
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    fn read(&self) -> BTreeMap<Digest, u32> {
        let text = std::fs::read(&self.path).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    fn write(&self, counts: &BTreeMap<Digest, u32>) {
        let text = serde_json::to_vec(counts).unwrap_or_default();
        if let Err(error) = std::fs::write(&self.path, text) {
            tracing::debug!(%error, path = %self.path.display(), "not noted");
        }
    }

    fn is_rested(path: &Path) -> bool {
        let modified = std::fs::metadata(path).and_then(|meta| meta.modified());
        let age = modified.ok().and_then(|time| SystemTime::now().duration_since(time).ok());
        age.is_some_and(|age| age > REST)
    }

    /// A version is loaded from now on. False if it must not be.
    pub fn begin(&self, digest: Digest) -> bool {
        let mut counts = self.read();
        let count = counts.entry(digest).or_default();
        if *count >= MOST && !Self::is_rested(&self.path) {
            return false;
        }
        *count = count.saturating_add(1);
        self.write(&counts);
        true
    }

    /// Its load has ended, and the process has not.
    pub fn end(&self, digest: Digest) {
        let mut counts = self.read();
        counts.remove(&digest);
        self.write(&counts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ended_the_process_three_times_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("suspects.json");
        let (bad, good) = (Digest::of(b"bad"), Digest::of(b"good"));
        for _ in 0..MOST {
            // A process that ends does not call `end`.
            assert!(Suspects::new(path.clone()).begin(bad));
        }
        let suspects = Suspects::new(path.clone());
        assert!(!suspects.begin(bad));
        for _ in 0..9 {
            assert!(suspects.begin(good));
            suspects.end(good);
        }
        let hour = SystemTime::now() - REST - Duration::from_secs(1);
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(hour).unwrap();
        assert!(suspects.begin(bad), "it may once more");
        suspects.end(bad);
        assert!(suspects.begin(bad));
    }
}
