//! Libraries that are mapped into this process and stay.

#![allow(unsafe_code, reason = "a library's own code runs while it is mapped")]

use std::error::Error as _;
use std::ffi::OsStr;

use libloading::os::unix::{Library, RTLD_LAZY, RTLD_LOCAL};

/// Map a library by its path, or by a name that the loader looks for. Whoever asks for the same
/// library later has it, wherever its file is by then.
///
/// # Errors
/// What the loader says.
pub(super) fn map(library: &OsStr) -> Result<(), String> {
    // SAFETY: whoever names it is the operator of this machine, or the machine itself. What runs are its
    // constructors, which start no thread and want nothing of ours.
    let mapped = unsafe { Library::open(Some(library), RTLD_LAZY | RTLD_LOCAL) };
    // What has handed out addresses must not go.
    mapped.map(std::mem::forget).map_err(|error| {
        // The error itself only says that it is one.
        error.source().map_or_else(|| error.to_string(), ToString::to_string)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_mapped_and_what_is_not_is_named() {
        map("libm.so.6".as_ref()).unwrap();
        let error = map("libnothing-of-the-kind.so.1".as_ref()).unwrap_err();
        assert!(error.contains("libnothing-of-the-kind.so.1"), "{error}");
    }
}
