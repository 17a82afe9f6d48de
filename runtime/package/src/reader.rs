//! Reads one table of a TOML document and reports all that is wrong with it.
//!
//! Each getter gives the value, or nothing: a missing key is no mistake (say
//! [`Reader::require`] where it is one), a wrong value is reported here and then
//! missing, so that the caller reads on and one mistake hides no other.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use crate::mistakes::Mistakes;
use crate::quantity::{self, QuantityError};
use crate::spelling;

/// One table, with its name as the author sees it, for instance `[[graph]]`.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    table: &'a DeTable<'a>,
    at: usize,
    what: &'static str,
    mistakes: &'a Mistakes<'a>,
}

/// A value and the byte where it begins.
#[derive(Clone, Copy)]
pub(crate) struct At<T> {
    pub(crate) at: usize,
    pub(crate) value: T,
}

// === impl Reader ===

impl<'a> Reader<'a> {
    /// Begin with a table; its unknown keys are reported at once.
    pub(crate) fn new(
        table: &'a DeTable<'a>,
        at: usize,
        what: &'static str,
        keys: &[&'static str],
        mistakes: &'a Mistakes<'a>,
    ) -> Self {
        for (key, _) in table {
            let name: &str = key.get_ref();
            if keys.contains(&name) {
                continue;
            }
            let fix = match spelling::nearest(name, keys.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("use {}", quoted(keys)),
            };
            mistakes.add(key.span().start, format!("unknown key `{name}` in {what}: {fix}"));
        }
        Self { table, at, what, mistakes }
    }

    /// Where the table begins.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// Where the value of a key begins, or the table if there is none.
    pub(crate) fn at_of(&self, key: &str) -> usize {
        self.table.get(key).map_or(self.at, |found| found.span().start)
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Report a mistake that only the caller can see.
    pub(crate) fn mistake(&self, at: usize, message: impl Display) {
        self.mistakes.add(at, message);
    }

    /// Report a missing key, with an example of what to write.
    pub(crate) fn require(&self, key: &str, example: &str) {
        if !self.has(key) {
            let what = self.what;
            self.mistake(self.at, format!("`{key}` is missing in {what}: write `{example}`"));
        }
    }

    pub(crate) fn text(&self, key: &str) -> Option<At<&'a str>> {
        self.typed(key, "a string", DeValue::as_str)
    }

    pub(crate) fn flag(&self, key: &str) -> Option<bool> {
        Some(self.typed(key, "true or false", DeValue::as_bool)?.value)
    }

    /// A string that a type parses.
    pub(crate) fn parsed<T: FromStr<Err: Display>>(&self, key: &str) -> Option<At<T>> {
        let text = self.text(key)?;
        match text.value.parse() {
            Ok(value) => Some(At { at: text.at, value }),
            Err(error) => {
                self.mistake(text.at, error);
                None
            }
        }
    }

    /// A whole number within bounds.
    pub(crate) fn integer(&self, key: &str, range: RangeInclusive<u32>) -> Option<u32> {
        let (least, most) = (*range.start(), *range.end());
        let want = format!("a whole number from {least} to {most}");
        let found = self.typed(key, &want, DeValue::as_integer)?;
        let number = to_u64(found.value).and_then(|number| u32::try_from(number).ok());
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            let what = self.what;
            self.mistake(found.at, format!("`{key}` in {what} is {}: write {want}", found.value));
        }
        number
    }

    /// A number from 0 to 1.
    pub(crate) fn share(&self, key: &str) -> Option<f32> {
        const WANT: &str = "a number from 0.0 to 1.0";
        let found = self.typed(key, WANT, |value| match value {
            DeValue::Float(float) => Some(float.as_str().to_owned()),
            DeValue::Integer(integer) => Some(integer.as_str().to_owned()),
            _ => None,
        })?;
        let share = found.value.parse().ok().filter(|share| (0.0..=1.0).contains(share));
        if share.is_none() {
            let what = self.what;
            self.mistake(found.at, format!("`{key}` in {what} is {}: write {WANT}", found.value));
        }
        share
    }

    /// A string such as `"2ms"`, within bounds.
    pub(crate) fn duration(&self, key: &str, range: RangeInclusive<Duration>) -> Option<Duration> {
        let example =
            "a duration with its unit, for instance \"500us\", \"2ms\", \"30s\" or \"5m\"";
        let found = self.typed(key, example, DeValue::as_str)?;
        let value = self.quantity(key, found, quantity::duration, example)?;
        self.within(key, At { at: found.at, value }, range, quantity::duration_text)
    }

    /// Bytes, or a string such as `"256MiB"`, within bounds.
    pub(crate) fn size(&self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let example = "a size in bytes or with its unit, for instance \"256MiB\" or \"64MB\"";
        let value = self.typed(key, example, |value| match value {
            DeValue::String(text) => Some(Ok(text.as_ref())),
            DeValue::Integer(bytes) => Some(Err(bytes)),
            _ => None,
        })?;
        let bytes = match value.value {
            Ok(text) => {
                let text = At { at: value.at, value: text };
                self.quantity(key, text, quantity::size, example)?
            }
            Err(bytes) => to_u64(bytes).unwrap_or_else(|| match bytes.as_str().starts_with('-') {
                true => 0,
                false => u64::MAX,
            }),
        };
        self.within(key, At { at: value.at, value: bytes }, range, quantity::size_text)
    }

    /// The strings of an array; elements of another type are reported and left out.
    pub(crate) fn texts(&self, key: &str, example: &str) -> Option<Vec<At<&'a str>>> {
        let want = format!("an array of strings, for instance {example}");
        let array = self.typed(key, &want, DeValue::as_array)?.value;
        let texts = array.iter().filter_map(|item| {
            let text = item.get_ref().as_str();
            if text.is_none() {
                self.mistake(item.span().start, self.wrong_type(key, item.get_ref(), "a string"));
            }
            text.map(|value| At { at: item.span().start, value })
        });
        Some(texts.collect())
    }

    /// The values of an array, to be judged by the caller.
    pub(crate) fn array(&self, key: &str, want: &str) -> Option<&'a [Spanned<DeValue<'a>>]> {
        Some(self.typed(key, want, DeValue::as_array)?.value)
    }

    /// A table below this one.
    pub(crate) fn table(
        &self,
        key: &str,
        what: &'static str,
        keys: &[&'static str],
    ) -> Option<Reader<'a>> {
        let want = format!("a table with the keys {}", quoted(keys));
        let found = self.typed(key, &want, DeValue::as_table)?;
        Some(Reader::new(found.value, found.at, what, keys, self.mistakes))
    }

    /// What a table below this one has, where the keys are the author's.
    pub(crate) fn entries(
        &self,
        key: &str,
        example: &str,
    ) -> impl Iterator<Item = (&'a str, At<&'a DeValue<'a>>)> + use<'a> {
        let want = format!("a table, for instance `{example}`");
        let found = self.typed(key, &want, DeValue::as_table);
        found.into_iter().flat_map(|found| found.value).map(|(key, value)| {
            (&**key.get_ref(), At { at: value.span().start, value: value.get_ref() })
        })
    }

    /// The tables of an array below this one, in order.
    pub(crate) fn tables(
        &self,
        key: &str,
        what: &'static str,
        keys: &[&'static str],
    ) -> Vec<Reader<'a>> {
        let (want, item_want) = match what.starts_with("[[") {
            true => (format!("{what}, once for each"), format!("{what}, once for each")),
            false => ("an array of tables".to_owned(), "a table".to_owned()),
        };
        let Some(array) = self.typed(key, &want, DeValue::as_array) else { return Vec::new() };
        let tables = array.value.iter().filter_map(|item| {
            let table = item.get_ref().as_table();
            if table.is_none() {
                self.mistake(item.span().start, self.wrong_type(key, item.get_ref(), &item_want));
            }
            Some(Reader::new(table?, item.span().start, what, keys, self.mistakes))
        });
        tables.collect()
    }

    fn typed<T>(
        &self,
        key: &str,
        want: &str,
        get: impl FnOnce(&'a DeValue<'a>) -> Option<T>,
    ) -> Option<At<T>> {
        let found = self.table.get(key)?;
        let at = found.span().start;
        let value = get(found.get_ref());
        if value.is_none() {
            self.mistake(at, self.wrong_type(key, found.get_ref(), want));
        }
        value.map(|value| At { at, value })
    }

    fn wrong_type(&self, key: &str, value: &DeValue<'_>, want: &str) -> String {
        let article =
            if matches!(value, DeValue::Integer(_) | DeValue::Array(_)) { "an" } else { "a" };
        let found = value.type_str();
        format!("`{key}` in {} has {article} {found}: write {want}", self.what)
    }

    fn quantity<T>(
        &self,
        key: &str,
        text: At<&str>,
        parse: fn(&str) -> Result<T, QuantityError>,
        example: &str,
    ) -> Option<T> {
        let fix = match parse(text.value) {
            Ok(value) => return Some(value),
            Err(QuantityError::Space(joined)) => format!("write \"{joined}\", without the space"),
            Err(QuantityError::Form) => format!("write {example}"),
            Err(QuantityError::Overflow) => "write a smaller number".to_owned(),
        };
        self.mistake(text.at, format!("`{key}` in {} is \"{}\": {fix}", self.what, text.value));
        None
    }

    fn within<T: PartialOrd + Copy>(
        &self,
        key: &str,
        found: At<T>,
        range: RangeInclusive<T>,
        show: fn(T) -> String,
    ) -> Option<T> {
        if range.contains(&found.value) {
            return Some(found.value);
        }
        let (least, most) = (show(*range.start()), show(*range.end()));
        let what = self.what;
        self.mistake(found.at, format!("`{key}` in {what} must be from {least} to {most}"));
        None
    }
}

/// The number, unless it is negative or above what 64 bits hold.
pub(crate) fn to_u64(integer: &DeInteger<'_>) -> Option<u64> {
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

fn quoted(keys: &[&str]) -> String {
    let quoted: Vec<_> = keys.iter().map(|key| format!("`{key}`")).collect();
    quoted.join(", ")
}
