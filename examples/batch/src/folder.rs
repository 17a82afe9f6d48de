//! What is in one folder. For WebAssembly it asks `wasi:filesystem` itself: an iterator of
//! the standard library ends at the first entry that it can't read, and so would hide all
//! files after one whose name is not UTF-8.

#[cfg(not(target_family = "wasm"))]
mod native;
#[cfg(target_family = "wasm")]
mod wasi;

#[cfg(not(target_family = "wasm"))]
pub(crate) use native::Root;
#[cfg(target_family = "wasm")]
pub(crate) use wasi::Root;

/// One entry of a folder.
pub(crate) struct Entry {
    pub name: String,
    pub kind: Kind,
}

/// What an entry is, links not followed.
pub(crate) enum Kind {
    File,
    Folder,
    /// A link, pipe, socket or device.
    Special,
}

/// What is wrong with a name; JSON has no way to write it.
const NOT_UTF8: &str = "a name in this folder is not UTF-8";
