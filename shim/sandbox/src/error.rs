//! Why a worker could not lock itself down. Each error names the step, the path, and what
//! to do.

use std::io;

/// A lockdown that did not happen. The process must end: half locked down is not locked down.
#[derive(Debug, thiserror::Error)]
pub enum LockdownError {
    /// The order asks for something that this sandbox does not give.
    #[error("{what} is refused: {why}")]
    Refused { what: String, why: String },
    /// The system did not do a step.
    #[error("cannot {step}: {source}{}", hint(source))]
    Failed { step: String, source: io::Error },
}

/// Names the step of a system call that failed.
pub(crate) trait Step<T> {
    fn step(self, step: impl FnOnce() -> String) -> Result<T, LockdownError>;
}

// === impl LockdownError ===

impl LockdownError {
    /// One word that says what went wrong.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "sandbox-refused",
            Self::Failed { .. } => "sandbox-failed",
        }
    }

    pub(crate) fn refused(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Refused { what: what.into(), why: why.into() }
    }
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, step: impl FnOnce() -> String) -> Result<T, LockdownError> {
        self.map_err(|error| LockdownError::Failed { step: step(), source: error.into() })
    }
}

/// What to do about an error of the system that has one usual reason.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => {
            "; a mount point that the image lacks can't be made in a read-only volume: \
             add the folder to the image or to the volume"
        }
        io::ErrorKind::PermissionDenied => "; the shim must run as root with all capabilities",
        io::ErrorKind::Unsupported => "; the kernel is too old: 5.6 or newer is needed",
        io::ErrorKind::StorageFull => "; the node's disk is full",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_says_what_it_did_and_what_to_do() {
        let failed: Result<(), _> = Err(io::Error::from_raw_os_error(libc::EROFS));
        let error = failed.step(|| "make the mount point /a".to_owned()).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("cannot make the mount point /a: "), "{text}");
        assert!(text.contains("add the folder"), "{text}");
        assert_eq!(error.code(), "sandbox-failed");
    }
}
