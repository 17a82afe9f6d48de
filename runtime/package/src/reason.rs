//! Stable codes for everything that can go wrong.

/// An error with a stable, machine-readable code.
///
/// The same code is the log field, the metric label and the field in JSON output,
/// so that one word found in a dashboard can be searched for in the documentation.
pub trait Reason {
    /// A short kebab-case word, for instance `bad-input`. It never changes with
    /// the data of the error.
    fn code(&self) -> &'static str;
}
