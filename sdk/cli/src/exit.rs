//! The exit codes of `wick`, in one table, so that scripts can tell what kind of thing
//! went wrong without reading text. The higher ones are those of BSD's `sysexits.h`.

use std::process::ExitCode;

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Failure,
    Refused,
    Usage,
    BadData,
    NotFound,
    Unavailable,
    CannotCreate,
    Denied,
    Interrupted,
}

// === impl Exit ===

impl Exit {
    const ALL: [Self; 9] = [
        Self::Failure,
        Self::Refused,
        Self::Usage,
        Self::BadData,
        Self::NotFound,
        Self::Unavailable,
        Self::CannotCreate,
        Self::Denied,
        Self::Interrupted,
    ];

    /// The number that the shell sees.
    pub const fn number(self) -> u8 {
        match self {
            Self::Failure => 1,
            Self::Refused => 2,
            Self::Usage => 64,
            Self::BadData => 65,
            Self::NotFound => 66,
            Self::Unavailable => 69,
            Self::CannotCreate => 73,
            Self::Denied => 77,
            Self::Interrupted => 130,
        }
    }

    const fn meaning(self) -> &'static str {
        match self {
            Self::Failure => "any other failure: a file or the system did not do what it should",
            Self::Refused => "the model or its server refused the request, or failed to answer it",
            Self::Usage => "a flag or argument is wrong",
            Self::BadData => "the package or the input is wrong: manifest, model file, component",
            Self::NotFound => "a file, package or model that was named is not there",
            Self::Unavailable => "a server, address, device or backend cannot be had now",
            Self::CannotCreate => "the output exists already or cannot be written",
            Self::Denied => "no signature that counts: the policy does not let the package run",
            Self::Interrupted => "ended by a second signal before requests were finished",
        }
    }

    /// The table for `wick help` and the documentation.
    pub fn table() -> String {
        let mut text = String::from("Exit codes:\n    0  done\n");
        for exit in Self::ALL {
            text.push_str(&format!("  {:>3}  {}\n", exit.number(), exit.meaning()));
        }
        text.push_str("A package that is a command ends wick with the command's own code.");
        text
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_exits_share_a_number() {
        let mut numbers: Vec<_> = Exit::ALL.map(Exit::number).to_vec();
        numbers.dedup();
        assert_eq!(numbers.len(), Exit::ALL.len());
        assert!(numbers.is_sorted());
    }
}
