//! Values of `parameters` in the Open Inference Protocol.

/// A value of a request's or response's `parameters`.
///
/// ```
/// use wick_guest::{Parameter, Request};
///
/// let request = Request::new().with_parameter("top", 5).with_parameter("lang", "en");
/// assert_eq!(request.parameter("top").and_then(Parameter::as_i64), Some(5));
/// assert_eq!(request.parameter("top").and_then(Parameter::as_f64), Some(5.0));
/// assert_eq!(request.parameter("lang").and_then(Parameter::as_str), Some("en"));
/// assert_eq!(request.parameter("lang").and_then(Parameter::as_bool), None);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub enum Parameter {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
}

// === impl Parameter ===

impl Parameter {
    /// The value of a `Bool`.
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Self::Bool(value) => Some(value),
            _ => None,
        }
    }

    /// The value of an `Int`.
    pub fn as_i64(&self) -> Option<i64> {
        match *self {
            Self::Int(value) => Some(value),
            _ => None,
        }
    }

    /// The value of a `Float`, or of an `Int`: JSON writes 5.0 as 5.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Self::Float(value) => Some(value),
            Self::Int(value) => Some(value as f64),
            _ => None,
        }
    }

    /// The value of a `Text`.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(value) => Some(value),
            _ => None,
        }
    }
}

macro_rules! parameter_from {
    ($($type:ty => $variant:ident),* $(,)?) => {
        $(impl From<$type> for Parameter {
            fn from(value: $type) -> Self {
                Self::$variant(value.into())
            }
        })*
    };
}

parameter_from! { bool => Bool, i32 => Int, i64 => Int, u32 => Int, f32 => Float, f64 => Float, &str => Text, String => Text }
