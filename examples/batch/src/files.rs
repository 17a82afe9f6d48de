//! The files below a folder, in the order of their names. Links are not followed, and what
//! is neither file nor folder is left alone: a pipe would keep the job waiting for ever.

use std::path::Path;

use crate::JobError;
use crate::folder::{Entry, Kind, Root};

/// Files of one job. Their names are in memory at once, to be sorted; more work than this is
/// better split into jobs that run beside each other.
const MAX_FILES: usize = 100_000;

/// Bytes of all names: a quarter of the memory that a package gets by default.
const MAX_NAMES: usize = 64 << 20;

/// Folders inside each other. Trees that people make are a dozen deep.
const MAX_DEPTH: usize = 64;

/// What is below a folder.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub found: Vec<Found>,
    /// Links, pipes, sockets and devices.
    pub left_out: usize,
}

/// A file, or what should have been one.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Found {
    /// Below the folder, `/` between its parts.
    pub name: String,
    /// Why it can't be read, if that is known already.
    pub refused: Option<String>,
}

/// Bounds of a listing.
#[derive(Clone, Copy)]
struct Bounds {
    files: usize,
    names: usize,
    depth: usize,
}

/// A listing that is being made.
struct Lister<'a> {
    root: &'a Path,
    bounds: Bounds,
    listing: Listing,
    /// Bytes of all names so far, those of folders included.
    names: usize,
    /// Folders to look into, and how deep they are.
    folders: Vec<(String, usize)>,
}

// === impl Listing ===

impl Listing {
    /// # Errors
    /// There is no such folder, or more below it than a job takes. A folder further down that
    /// can't be listed is among what was found.
    pub(crate) fn of(root: &Path) -> Result<Self, JobError> {
        Self::within(root, Bounds { files: MAX_FILES, names: MAX_NAMES, depth: MAX_DEPTH })
    }

    fn within(root: &Path, bounds: Bounds) -> Result<Self, JobError> {
        let Some(folder) = Root::open(root) else {
            return Err(JobError::NoData { path: root.to_owned() });
        };
        let listing = Self::default();
        let folders = vec![(String::new(), 0)];
        let mut lister = Lister { root, bounds, listing, names: 0, folders };
        while let Some((name, depth)) = lister.folders.pop() {
            lister.look_into(&folder, &name, depth)?;
        }
        let mut listing = lister.listing;
        listing.found.sort_unstable();
        Ok(listing)
    }
}

// === impl Lister ===

impl Lister<'_> {
    fn look_into(&mut self, root: &Root, folder: &str, depth: usize) -> Result<(), JobError> {
        if depth > self.bounds.depth {
            let refused = format!("more than {} folders inside each other", self.bounds.depth);
            return self.refuse(folder, refused);
        }
        let entries = match root.entries(folder) {
            Ok(entries) => entries,
            Err(refused) => return self.refuse(folder, refused),
        };
        for entry in entries {
            match entry {
                Ok(entry) => self.look_at(&entry, folder, depth)?,
                // It has no name that could be told, and the others are still to come.
                Err(refused) => self.refuse(folder, refused)?,
            }
        }
        Ok(())
    }

    fn look_at(&mut self, entry: &Entry, folder: &str, depth: usize) -> Result<(), JobError> {
        let separator = if folder.is_empty() { "" } else { "/" };
        let name = format!("{folder}{separator}{}", entry.name);
        match entry.kind {
            Kind::File => self.add(Found { name, refused: None }),
            Kind::Folder => {
                self.count(&name)?;
                self.folders.push((name, depth + 1));
                Ok(())
            }
            Kind::Special => {
                self.listing.left_out += 1;
                Ok(())
            }
        }
    }

    fn refuse(&mut self, name: &str, refused: String) -> Result<(), JobError> {
        // The folder itself has no name below itself.
        let name = if name.is_empty() { "." } else { name };
        self.add(Found { name: name.to_owned(), refused: Some(refused) })
    }

    fn add(&mut self, found: Found) -> Result<(), JobError> {
        self.count(&found.name)?;
        self.listing.found.push(found);
        Ok(())
    }

    /// Room for one more name.
    fn count(&mut self, name: &str) -> Result<(), JobError> {
        let Bounds { files, names, .. } = self.bounds;
        self.names += name.len();
        if self.listing.found.len() + self.folders.len() >= files || self.names > names {
            return Err(JobError::TooMany { path: self.root.to_owned(), files, names });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
