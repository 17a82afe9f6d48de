//! Folders of `wasi:filesystem`.

use std::path::Path;

use wasip2::filesystem::preopens::get_directories;
use wasip2::filesystem::types::{
    Descriptor, DescriptorFlags, DescriptorType, DirectoryEntry, DirectoryEntryStream, ErrorCode,
    OpenFlags, PathFlags,
};

use super::{Entry, Kind, NOT_UTF8};

/// The folder that the others are below: a mount.
pub(crate) struct Root(Descriptor);

/// The entries of one folder.
struct Entries(DirectoryEntryStream);

// === impl Root ===

impl Root {
    /// None if no such mount is granted.
    pub(crate) fn open(path: &Path) -> Option<Self> {
        let mut granted = get_directories().into_iter();
        granted.find(|(_, name)| Path::new(name) == path).map(|(mount, _)| Self(mount))
    }

    /// What is in one folder below this one; an empty name is this one.
    ///
    /// # Errors
    /// It can't be listed.
    pub(crate) fn entries(
        &self,
        folder: &str,
    ) -> Result<impl Iterator<Item = Result<Entry, String>>, String> {
        let stream = if folder.is_empty() {
            self.0.read_directory()
        } else {
            // No flag: a link that has taken a folder's place is not followed.
            let (links, open) = (PathFlags::empty(), OpenFlags::DIRECTORY);
            let below = self.0.open_at(links, folder, open, DescriptorFlags::READ);
            below.and_then(|below| below.read_directory())
        };
        stream.map(Entries).map_err(reason)
    }
}

// === impl Entries ===

impl Iterator for Entries {
    type Item = Result<Entry, String>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.0.read_directory_entry().transpose()?;
        Some(entry.map(Entry::from).map_err(reason))
    }
}

impl From<DirectoryEntry> for Entry {
    fn from(entry: DirectoryEntry) -> Self {
        let kind = match entry.type_ {
            DescriptorType::Directory => Kind::Folder,
            DescriptorType::RegularFile => Kind::File,
            _ => Kind::Special,
        };
        Self { name: entry.name, kind }
    }
}

fn reason(code: ErrorCode) -> String {
    match code {
        ErrorCode::IllegalByteSequence => NOT_UTF8.to_owned(),
        code => format!("an error of the file system: {}", code.name()),
    }
}
