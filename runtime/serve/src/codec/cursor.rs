//! A way through the outer structure of a JSON text, member by member.
//!
//! serde reads each value. What it can't do is to leave a value unread: a tensor's data may
//! come before the datatype that says how to read it, and to check it as text first takes as
//! long as to read it. Here an array can be passed over by its brackets alone, to be read
//! later.

use std::borrow::Cow;

use memchr::{memchr2, memchr3, memrchr};
use serde::de::{Deserialize, IgnoredAny};
use serde_json::error::Category;

use super::DecodeError;

/// What stands where a number should.
const NOT_NUMBERS: [&[u8]; 2] = [b"NaN", b"Inf"];
const HINT: &str = "; JSON has no NaN and no infinities: send the tensor as binary data";

/// Bytes round a mistake that are searched for what it is.
const NEAR: usize = 3;

/// A place in a JSON text.
#[derive(Debug)]
pub(super) struct Cursor<'t> {
    text: &'t [u8],
    at: usize,
}

/// An array that was passed over. Nothing is known of what its brackets hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unread<'t> {
    pub at: usize,
    pub text: &'t [u8],
}

/// The name of a member.
#[derive(serde::Deserialize)]
struct Key<'t>(#[serde(borrow)] Cow<'t, str>);

type Step = Result<(), DecodeError>;

// === impl Cursor ===

impl<'t> Cursor<'t> {
    pub fn new(text: &'t [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// Take a value as serde reads it. All of it must be text, which serde does not look at in
    /// what nobody wants of it.
    pub fn value<T: Deserialize<'t>>(&mut self) -> Result<T, DecodeError> {
        let json = serde_json::Deserializer::from_slice(&self.text[self.at..]);
        let mut values = json.into_iter();
        match values.next() {
            Some(Ok(value)) => {
                let read = &self.text[self.at..][..values.byte_offset()];
                if let Err(error) = std::str::from_utf8(read) {
                    self.at += error.valid_up_to();
                    return Err(self.syntax("a string is not UTF-8"));
                }
                self.at += read.len();
                Ok(value)
            }
            Some(Err(error)) => Err(fault(self.text, self.at, &error)),
            None => Err(self.syntax("a value is missing")),
        }
    }

    /// Pass a value over, whatever it is.
    pub fn skip(&mut self) -> Step {
        self.value::<IgnoredAny>().map(drop)
    }

    /// Take an object; `member` takes each value. `what` it should be is for the error.
    pub fn object(&mut self, what: &str, mut member: impl FnMut(&mut Self, &str) -> Step) -> Step {
        self.open(b'{', what)?;
        if self.took(b'}') {
            return Ok(());
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.syntax("the name of a member must be a string"));
            }
            let Key(key) = self.value()?;
            if !self.took(b':') {
                return Err(self.syntax("expected `:`"));
            }
            member(self, &key)?;
            if self.took(b'}') {
                return Ok(());
            }
            if !self.took(b',') {
                return Err(self.syntax("expected `,` or `}`"));
            }
        }
    }

    /// Take an array; `item` takes each value.
    pub fn array(&mut self, what: &str, mut item: impl FnMut(&mut Self) -> Step) -> Step {
        self.open(b'[', what)?;
        if self.took(b']') {
            return Ok(());
        }
        loop {
            item(self)?;
            if self.took(b']') {
                return Ok(());
            }
            if !self.took(b',') {
                return Err(self.syntax("expected `,` or `]`"));
            }
        }
    }

    /// Pass a value over that is meant to be an array.
    pub fn unread(&mut self) -> Result<Unread<'t>, DecodeError> {
        let opens = self.peek() == Some(b'[');
        let at = self.at;
        if opens {
            self.at = end_of_array(self.text, at).ok_or_else(|| {
                self.at = self.text.len();
                self.syntax("the text ends in an array")
            })?;
        } else {
            self.skip()?;
        }
        Ok(Unread { at, text: &self.text[at..self.at] })
    }

    /// Nothing may follow.
    pub fn end(&mut self) -> Step {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.syntax("something follows the request")),
        }
    }

    /// An error that serde has found in what was passed over.
    pub fn fault(&self, unread: Unread<'_>, error: &serde_json::Error) -> DecodeError {
        fault(self.text, unread.at, error)
    }

    fn peek(&mut self) -> Option<u8> {
        let blank = |byte: &&u8| matches!(byte, b' ' | b'\n' | b'\r' | b'\t');
        self.at += self.text[self.at..].iter().take_while(blank).count();
        self.text.get(self.at).copied()
    }

    fn took(&mut self, byte: u8) -> bool {
        let is = self.peek() == Some(byte);
        self.at += usize::from(is);
        is
    }

    fn open(&mut self, bracket: u8, what: &str) -> Step {
        if self.took(bracket) {
            return Ok(());
        }
        if self.peek().is_none() {
            return Err(self.syntax(&format!("the text ends, and should be {what}")));
        }
        // Something else, if it is anything.
        let (line, column) = place(self.text, self.at);
        self.skip()?;
        Err(DecodeError::Request(format!("expected {what} at line {line} column {column}")))
    }

    fn syntax(&self, what: &str) -> DecodeError {
        let (line, column) = place(self.text, self.at);
        let text = format!("{what} at line {line} column {column}{}", hint(self.text, self.at));
        DecodeError::Json(text)
    }
}

/// Where an array ends that begins at `at`, by brackets and strings alone.
fn end_of_array(text: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0_usize;
    loop {
        at += memchr3(b'[', b']', b'"', &text[at..])?;
        let byte = text[at];
        at += 1;
        match byte {
            b'[' => depth += 1,
            b']' => depth -= 1,
            _ => at = end_of_string(text, at)?,
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

/// Where a string ends whose first letter is at `at`.
fn end_of_string(text: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at + 1);
        }
        // Whatever is escaped, its first letter is passed over with the sign.
        at += 2;
    }
}

/// An error of the part of the text that begins at `at`, with its place in the whole.
fn fault(text: &[u8], at: usize, error: &serde_json::Error) -> DecodeError {
    let (line, column) = match (place(text, at), error.line(), error.column()) {
        ((line, first), 1, column) => (line, first - 1 + column),
        ((line, _), more, column) => (line + more.saturating_sub(1), column),
    };
    let own = format!(" at line {} column {}", error.line(), error.column());
    let message = error.to_string();
    let message = message.strip_suffix(&own).unwrap_or(&message);
    let message = format!("{message} at line {line} column {column}");
    if error.classify() == Category::Data {
        return DecodeError::Request(message);
    }
    let lines = text.split_inclusive(|&byte| byte == b'\n').take(line - 1);
    let at = lines.map(<[u8]>::len).sum::<usize>() + column.saturating_sub(1);
    DecodeError::Json(format!("{message}{}", hint(text, at)))
}

/// Line and column of a byte, both from 1.
fn place(text: &[u8], at: usize) -> (usize, usize) {
    let before = &text[..at.min(text.len())];
    let line = memchr::memchr_iter(b'\n', before).count() + 1;
    let start = memrchr(b'\n', before).map_or(0, |end| end + 1);
    (line, before.len() - start + 1)
}

/// What to do about a common mistake at a place.
fn hint(text: &[u8], at: usize) -> &'static str {
    let near = &text[at.saturating_sub(NEAR).min(text.len())..(at + 2 * NEAR).min(text.len())];
    let found = NOT_NUMBERS.iter().any(|word| near.windows(word.len()).any(|part| part == *word));
    if found { HINT } else { "" }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    proptest! {
        /// What the brackets say is what serde says of valid JSON.
        #[test]
        fn an_array_ends_where_serde_says(
            text in "\\[([ ,]|[0-9.e-]{1,4}|\"[\\]\\[a,]{0,3}(\\\\[\"\\\\n]){0,2}\"|\\[|\\]){0,12}\\]",
            tail in "[,}\\] ]{0,3}",
        ) {
            let whole = format!("{text}{tail}");
            let mut values = serde_json::Deserializer::from_str(&whole).into_iter::<&RawValue>();
            if let Some(Ok(value)) = values.next() {
                let mut cursor = Cursor::new(whole.as_bytes());
                prop_assert_eq!(cursor.unread().unwrap().text, value.get().as_bytes());
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "[\\[\\]{}\":,\\\\a0N \n]{0,30}") {
            let mut cursor = Cursor::new(text.as_bytes());
            _ = cursor.unread();
            _ = cursor.end();
            let mut cursor = Cursor::new(text.as_bytes());
            _ = cursor.object("an object", |cursor, _| cursor.unread().map(drop));
            let mut cursor = Cursor::new(text.as_bytes());
            _ = cursor.array("an array", Cursor::skip);
        }
    }

    #[test]
    fn a_mistake_is_placed_in_the_whole_text() {
        let text = b"{\n \"a\": [1,\n 2 x]}";
        let mut cursor = Cursor::new(text);
        let error = cursor.object("an object", |cursor, _| cursor.skip()).unwrap_err();
        let want = "the request is not valid JSON: expected `,` or `]` at line 3 column 4";
        assert_eq!(error.to_string(), want);
    }
}
