//! A policy in one text: the keys that it names as files are written into it, so that it can go
//! where those files are not. Nothing else of the text changes, comments and order included.

use std::io;
use std::ops::Range;
use std::path::Path;

use toml::de::DeTable;

use crate::mistakes::ManifestErrors;
use crate::signature::policy::{Load, Policy};

/// What is put in the place of some bytes of a text.
struct Edit {
    at: Range<usize>,
    text: String,
}

// === impl Policy ===

impl Policy {
    /// The policy, and its text with every key in it as `public_key`.
    ///
    /// # Errors
    /// Those of [`Policy::parse`].
    pub fn embed(
        text: &str,
        file: &Path,
        load: &Load<'_>,
    ) -> Result<(Self, String), ManifestErrors> {
        let policy = Self::parse(text, file, load)?;
        let mut whole = text.to_owned();
        // From the end, so that what comes before stays where it is.
        for Edit { at, text } in edits(text, &policy).into_iter().rev() {
            whole.replace_range(at, &text);
        }
        let none = |_: &str| -> io::Result<String> { Err(io::ErrorKind::NotFound.into()) };
        let again = Self::parse(&whole, file, &none)?;
        debug_assert_eq!(again, policy, "the same keys, under the same names");
        Ok((policy, whole))
    }
}

/// For each key that is named as a file, the key itself. The tables and the keys of a policy
/// without mistakes are the same, in the same order.
fn edits(text: &str, policy: &Policy) -> Vec<Edit> {
    let (document, _) = DeTable::parse_recoverable(text);
    let tables = document.get_ref().get("key").and_then(|keys| keys.get_ref().as_array());
    let tables = tables.into_iter().flatten().filter_map(|table| table.get_ref().as_table());
    let mut edits = Vec::new();
    for (table, trusted) in tables.zip(&policy.keys) {
        let file = table.iter().find(|(key, _)| key.get_ref() == "file");
        let Some((key, value)) = file else { continue };
        let at = key.span().start..value.span().end;
        let text = format!("public_key = '''\n{}'''", trusted.key.to_pem());
        edits.push(Edit { at, text });
    }
    edits.sort_by_key(|edit| edit.at.start);
    edits
}
