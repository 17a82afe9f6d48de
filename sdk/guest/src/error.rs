//! Why a request is not answered, and how that reaches the client.

use std::fmt;

/// What a handler returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a request is not answered.
///
/// The kind decides the status that the client sees; the message is its text. With
/// `?`, any [`std::error::Error`] becomes one of kind [`ErrorKind::Internal`], with its
/// sources in the message.
///
/// ```
/// use wick_guest::{Error, ErrorKind, Result};
///
/// fn threshold(text: &str) -> Result<f32> {
///     let value: f32 = text.parse()?; // not a number: internal, status 500
///     if !(0.0..=1.0).contains(&value) {
///         return Err(Error::bad_input(format!("threshold {value} is not within 0 and 1")));
///     }
///     Ok(value)
/// }
///
/// assert_eq!(threshold("high").unwrap_err().kind(), ErrorKind::Internal);
/// assert_eq!(threshold("7").unwrap_err().kind(), ErrorKind::BadInput);
/// ```
//
// It does not implement `std::error::Error`: that would forbid the conversion from
// every type which does.
pub struct Error {
    kind: ErrorKind,
    message: String,
}

/// What kind of failure it is. Beside each: its HTTP and gRPC status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The caller's mistake. 400, INVALID_ARGUMENT.
    BadInput,
    /// Something that the request names does not exist. 404, NOT_FOUND.
    NotFound,
    /// More than the handler takes. 413, RESOURCE_EXHAUSTED.
    TooLarge,
    /// It may work later. 503, UNAVAILABLE.
    Unavailable,
    /// There was not enough time. 504, DEADLINE_EXCEEDED.
    Deadline,
    /// The handler's or the host's mistake. 500, INTERNAL.
    Internal,
}

/// Turns a missing value, or another error, into one that blames the caller.
///
/// ```
/// use wick_guest::{ErrorKind, ResultExt as _};
///
/// let error = "seven".parse::<i64>().or_bad_input("parameter `top`").unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::BadInput);
/// assert_eq!(error.to_string(), "parameter `top`: invalid digit found in string");
///
/// let error = None::<i64>.or_bad_input("parameter `top` is missing").unwrap_err();
/// assert_eq!(error.to_string(), "parameter `top` is missing");
/// ```
pub trait ResultExt<T> {
    /// The value, or an error of kind [`ErrorKind::BadInput`] that starts with `what`.
    ///
    /// # Errors
    /// There is no value.
    fn or_bad_input(self, what: impl fmt::Display) -> Result<T>;
}

// === impl Error ===

impl Error {
    /// The caller's mistake: status 400.
    pub fn bad_input(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::BadInput, message)
    }

    /// Something that the request names does not exist: status 404.
    pub fn not_found(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// More than the handler takes: status 413.
    pub fn too_large(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::TooLarge, message)
    }

    /// It may work later: status 503.
    pub fn unavailable(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// The handler's own failure: status 500.
    pub fn internal(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// An error of any kind.
    pub fn new(kind: ErrorKind, message: impl fmt::Display) -> Self {
        Self { kind, message: message.to_string() }
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The text that the client sees.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The same message with another kind: for instance when a graph refuses a tensor
    /// whose shape the caller chose.
    ///
    /// ```
    /// use wick_guest::{Error, ErrorKind};
    ///
    /// let error = Error::internal("graph `det` refused `x`").with_kind(ErrorKind::BadInput);
    /// assert_eq!(error.kind(), ErrorKind::BadInput);
    /// ```
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.message)
    }
}

impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message.push_str(": ");
            message.push_str(&cause.to_string());
            source = cause.source();
        }
        Self { kind: ErrorKind::Internal, message }
    }
}

// === impl ResultExt ===

impl<T, E: fmt::Display> ResultExt<T> for std::result::Result<T, E> {
    fn or_bad_input(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Error::bad_input(format_args!("{what}: {error}")))
    }
}

impl<T> ResultExt<T> for Option<T> {
    fn or_bad_input(self, what: impl fmt::Display) -> Result<T> {
        self.ok_or_else(|| Error::bad_input(what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Outer(std::num::ParseIntError);

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bad header")
        }
    }

    impl std::error::Error for Outer {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn a_converted_error_names_its_sources() {
        let error = Error::from(Outer("x".parse::<u8>().unwrap_err()));
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert_eq!(error.message(), "bad header: invalid digit found in string");
    }
}
