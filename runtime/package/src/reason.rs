//! Stable codes for everything that can go wrong, and its whole text.

/// An error with a stable, machine-readable code.
///
/// The same code is the log field, the metric label and the field in JSON output,
/// so that one word found in a dashboard can be searched for in the documentation.
pub trait Reason {
    /// A short kebab-case word, for instance `bad-input`. It never changes with
    /// the data of the error.
    fn code(&self) -> &'static str;
}

/// An error with its causes, on one line: `this failed: so that: since this`.
pub fn error_text(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
