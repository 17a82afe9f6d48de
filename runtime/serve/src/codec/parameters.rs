//! `parameters`: a JSON object whose values are strings, numbers or booleans.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use wick_engine::Parameter;

use super::{MAX_PARAMETERS, clip};

/// Parameters in the order of the text; empty for an absent or null object.
#[derive(Debug, Default)]
pub(crate) struct Parameters(pub Vec<(String, Parameter)>);

struct ParametersVisitor;
struct Value(Parameter);
struct ValueVisitor;

// === impl Parameters ===

impl Parameters {
    /// Take a parameter out, since the server itself uses it.
    pub(crate) fn take(&mut self, name: &str) -> Option<Parameter> {
        let at = self.0.iter().position(|(key, _)| key == name)?;
        Some(self.0.swap_remove(at).1)
    }

    /// Take a parameter that must be true or false.
    pub(crate) fn take_bool(&mut self, name: &str) -> Result<Option<bool>, String> {
        match self.take(name) {
            None => Ok(None),
            Some(Parameter::Bool(value)) => Ok(Some(value)),
            Some(_) => Err(format!("parameter `{name}` must be true or false")),
        }
    }

    /// Take a parameter that must be a whole number, zero or more.
    pub(crate) fn take_count(&mut self, name: &str) -> Result<Option<u64>, String> {
        let value = match self.take(name) {
            None => return Ok(None),
            Some(Parameter::Int(value)) => u64::try_from(value).ok(),
            Some(_) => None,
        };
        value.map(Some).ok_or_else(|| format!("parameter `{name}` must be a whole number >= 0"))
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }
}

impl<'de> Deserialize<'de> for Parameters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ParametersVisitor)
    }
}

impl<'de> Visitor<'de> for ParametersVisitor {
    type Value = Parameters;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of parameters")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Parameters, E> {
        Ok(Parameters::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parameters, A::Error> {
        let mut all = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            if all.len() == MAX_PARAMETERS {
                let text = format!("more than {MAX_PARAMETERS} parameters");
                return Err(de::Error::custom(text));
            }
            if all.iter().any(|(other, _)| *other == key) {
                return Err(de::Error::custom(format!("parameter `{}` twice", clip(&key))));
            }
            all.push((key, map.next_value::<Value>()?.0));
        }
        Ok(Parameters(all))
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

impl Visitor<'_> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a parameter that is a string, a number, true or false")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value(Parameter::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value(Parameter::Int(value)))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        let value = i64::try_from(value);
        value.map(|value| Value(Parameter::Int(value))).map_err(|_| {
            E::custom("a whole number in `parameters` must fit into 64 bits with sign")
        })
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value(Parameter::Float(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value(Parameter::Text(value.to_owned())))
    }
}
