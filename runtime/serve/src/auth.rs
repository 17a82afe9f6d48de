//! Bearer tokens: who may call which model, and who may load and unload models.
//!
//! ```text
//!  Authorization ──▶ Tokens::grant ──▶ Grant, in the request's extensions ──▶ handlers
//!                        └──▶ refused: 401, or UNAUTHENTICATED over gRPC
//! ```
//!
//! The file has hashes and no tokens, so whoever reads it can call nothing. Tokens are random
//! and long, which is why one round of SHA-256 is enough. A handler asks the [`Grant`]; a
//! request without one may do nothing.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use http::{Extensions, HeaderMap, header};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use subtle::{ConditionallySelectable as _, ConstantTimeEq as _};
use tokio_util::sync::CancellationToken;

use crate::codec::clip;
use crate::reload::{ReloadError, Reloaded};
use crate::respond::Failure;

/// Most entries of a file: every request is compared with all of them.
const MAX_TOKENS: usize = 1024;

/// Most bytes of a token that is hashed. Those of `wick token` have 69; a longer one is
/// somebody else's.
const MAX_TOKEN: usize = 4096;

/// Paths that need no token: what keeps a pod alive must not depend on a file of tokens.
/// The page is the same for everybody, and asks for a token itself.
const OPEN: [&str; 7] = [
    "/v2/page",
    "/v2/health/live",
    "/v2/health/ready",
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady",
];

const METRICS: &str = "/metrics";

/// Tokens in a file that is read again when it changes.
#[derive(Debug, Clone)]
pub struct Auth {
    tokens: Arc<Reloaded<Tokens>>,
    open_metrics: bool,
}

/// All tokens that are let in.
#[derive(Debug)]
struct Tokens(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    hash: [u8; 32],
    grant: Grant,
}

/// What a request may do. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Grant(Arc<Rights>);

#[derive(Debug)]
struct Rights {
    /// Whose token it is. None if the server asks for none.
    name: Option<String>,
    models: Vec<Pattern>,
    control: bool,
}

/// A model's name, or how names begin.
#[derive(Debug, PartialEq, Eq)]
enum Pattern {
    Name(String),
    Prefix(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    token: Vec<FileEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileEntry {
    name: String,
    sha256: String,
    models: Vec<String>,
    #[serde(default)]
    control: bool,
}

// === impl Auth ===

impl Auth {
    /// Read the file. With `open_metrics`, `/metrics` needs no token.
    ///
    /// # Errors
    /// It can't be read, or has a mistake.
    pub fn open(file: PathBuf, open_metrics: bool) -> Result<Self, ReloadError> {
        let make = |files: &[Vec<u8>]| match files {
            [file] => Tokens::parse(file),
            _ => Err("the file is missing".to_owned()),
        };
        Ok(Self { tokens: Reloaded::open("file of tokens", vec![file], make)?, open_metrics })
    }

    /// Read the file again when it changes, until `stop` is cancelled.
    pub(crate) async fn keep(self, stop: CancellationToken) {
        self.tokens.keep(stop).await;
    }

    /// What a request may do, by its path and its headers.
    ///
    /// # Errors
    /// It has no token, or one that is not in the file.
    pub(crate) fn grant(&self, path: &str, headers: &HeaderMap) -> Result<Grant, Failure> {
        if OPEN.contains(&path) || (self.open_metrics && path == METRICS) {
            return Ok(Grant::nothing());
        }
        self.tokens.current().grant(headers)
    }
}

// === impl Tokens ===

impl Tokens {
    fn parse(file: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(file).map_err(|_| "it is not UTF-8".to_owned())?;
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        if file.token.len() > MAX_TOKENS {
            return Err(format!("it has more than {MAX_TOKENS} tokens"));
        }
        let (mut names, mut hashes) = (HashSet::new(), HashSet::new());
        let mut entries = Vec::with_capacity(file.token.len());
        for token in file.token {
            let entry = Entry::parse(token)?;
            let name = entry.grant.name().unwrap_or_default();
            if !names.insert(name.to_owned()) {
                return Err(format!("two tokens are called `{}`", clip(name)));
            }
            if !hashes.insert(entry.hash) {
                return Err(format!("token `{}` has the sha256 of another one", clip(name)));
            }
            entries.push(entry);
        }
        Ok(Self(entries))
    }

    fn grant(&self, headers: &HeaderMap) -> Result<Grant, Failure> {
        let token = bearer(headers).ok_or(Failure::NoToken)?;
        let hash: [u8; 32] = Sha256::digest(token).into();
        // All entries are compared, and each wholly: the time says nothing of the file.
        let (mut found, mut at) = (subtle::Choice::from(0), 0_u32);
        for (entry, index) in self.0.iter().zip(0_u32..) {
            let same = entry.hash.ct_eq(&hash);
            at = u32::conditional_select(&at, &index, same);
            found |= same;
        }
        let entry = self.0.get(at as usize).filter(|_| bool::from(found));
        entry.map(|entry| entry.grant.clone()).ok_or(Failure::UnknownToken)
    }
}

/// The token of `Authorization: Bearer TOKEN`, given once.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (all.next(), all.next()) else { return None };
    let (scheme, token) = value.as_bytes().split_at_checked("Bearer ".len())?;
    let token = token.trim_ascii();
    let good = !token.is_empty() && token.len() <= MAX_TOKEN;
    (good && scheme.eq_ignore_ascii_case(b"Bearer ")).then_some(token)
}

// === impl Entry, Pattern ===

impl Entry {
    fn parse(token: FileEntry) -> Result<Self, String> {
        let name = token.name;
        if name.is_empty() {
            return Err("a token has no name".to_owned());
        }
        let hash = hash(&token.sha256).ok_or_else(|| {
            format!("token `{}`: sha256 must be 64 hexadecimal digits", clip(&name))
        })?;
        let models = token.models.into_iter().map(Pattern::parse).collect::<Result<_, _>>();
        let models = models.map_err(|detail| format!("token `{}`: {detail}", clip(&name)))?;
        let rights = Rights { name: Some(name), models, control: token.control };
        Ok(Self { hash, grant: Grant(Arc::new(rights)) })
    }
}

fn hash(text: &str) -> Option<[u8; 32]> {
    let text = text.as_bytes();
    if text.len() != 64 {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, digits) in hash.iter_mut().zip(text.chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16).map(|digit| digit as u8);
        *byte = digit(digits[0])? << 4 | digit(digits[1])?;
    }
    Some(hash)
}

impl Pattern {
    fn parse(text: String) -> Result<Self, String> {
        match text.strip_suffix('*') {
            None if text.is_empty() => Err("a model has no name".to_owned()),
            Some(prefix) if !prefix.contains('*') => Ok(Self::Prefix(prefix.to_owned())),
            None if !text.contains('*') => Ok(Self::Name(text)),
            _ => Err(format!("model `{}`: `*` is only possible at the end", clip(&text))),
        }
    }

    fn matches(&self, model: &str) -> bool {
        match self {
            Self::Name(name) => name == model,
            Self::Prefix(prefix) => model.starts_with(prefix),
        }
    }
}

// === impl Grant ===

impl Grant {
    /// What a request may do on a server that asks for no tokens.
    pub(crate) fn everything() -> Self {
        let models = vec![Pattern::Prefix(String::new())];
        Self(Arc::new(Rights { name: None, models, control: true }))
    }

    /// What a request may do that has shown nothing.
    pub(crate) fn nothing() -> Self {
        Self(Arc::new(Rights { name: None, models: Vec::new(), control: false }))
    }

    /// The grant that was put into a request's extensions; nothing if there is none.
    pub fn of(extensions: &Extensions) -> Self {
        extensions.get().cloned().unwrap_or_else(Self::nothing)
    }

    /// Whose token it is.
    fn name(&self) -> Option<&str> {
        self.0.name.as_deref()
    }

    /// Whether the request may call this model and see what it is.
    pub fn allows(&self, model: &str) -> bool {
        self.0.models.iter().any(|pattern| pattern.matches(model))
    }

    /// # Errors
    /// The request may not call this model, whether there is one or not.
    pub fn check(&self, model: &str) -> Result<(), Failure> {
        if self.allows(model) {
            return Ok(());
        }
        Err(Failure::ModelForbidden { model: clip(model), token: self.shown() })
    }

    /// # Errors
    /// The request may not load and unload this model.
    pub fn check_control(&self, model: &str) -> Result<(), Failure> {
        self.check(model)?;
        if self.0.control {
            return Ok(());
        }
        Err(Failure::ControlForbidden { token: self.shown() })
    }

    fn shown(&self) -> String {
        self.name().map_or_else(String::new, clip)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn entry(name: &str, token: &str, rest: &str) -> String {
        let hash: String = Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("[[token]]\nname = \"{name}\"\nsha256 = \"{hash}\"\n{rest}\n")
    }

    fn headers(values: &[&str]) -> HeaderMap {
        let value = |text: &&str| (header::AUTHORIZATION, HeaderValue::from_str(text).unwrap());
        values.iter().map(value).collect()
    }

    #[test]
    fn a_token_may_what_its_entry_says() {
        let file = [
            entry("camera", "c", "models = [\"cat\", \"ocr-*\"]"),
            entry("admin", "a", "models = [\"*\"]\ncontrol = true"),
            entry("nobody", "n", "models = []"),
            entry("half", "h", "models = [\"cat\"]\ncontrol = true"),
        ];
        let tokens = Tokens::parse(file.concat().as_bytes()).unwrap();
        // Token, model, may call, may load and unload.
        let table = [
            ("c", "cat", true, false),
            ("c", "cats", false, false),
            ("c", "ocr-1", true, false),
            ("c", "ocr", false, false),
            ("c", "", false, false),
            ("a", "cat", true, true),
            ("a", "anything", true, true),
            ("n", "cat", false, false),
            ("h", "cat", true, true),
            ("h", "dog", false, false),
        ];
        for (token, model, call, control) in table {
            let grant = tokens.grant(&headers(&[&format!("Bearer {token}")])).unwrap();
            assert_eq!(grant.allows(model), call, "{token} {model}");
            assert_eq!(grant.check(model).is_ok(), call, "{token} {model}");
            assert_eq!(grant.check_control(model).is_ok(), control, "{token} {model}");
        }
        assert!(!Grant::of(&Extensions::new()).allows("cat"));
    }

    #[test]
    fn only_one_good_authorization_header_lets_in() {
        let tokens = Tokens::parse(entry("x", "secret", "models = [\"*\"]").as_bytes()).unwrap();
        let table: [(&[&str], Option<&str>); 11] = [
            (&["Bearer secret"], None),
            (&["bearer   secret "], None),
            (&[], Some("no-token")),
            (&["Bearer"], Some("no-token")),
            (&["Bearer "], Some("no-token")),
            (&["Basic secret"], Some("no-token")),
            (&["secret"], Some("no-token")),
            (&["Bearer secret", "Bearer secret"], Some("no-token")),
            (&["Bearer secre"], Some("unknown-token")),
            (&["Bearer secretsecret"], Some("unknown-token")),
            (&["Bearer Secret"], Some("unknown-token")),
        ];
        for (values, want) in table {
            let got = tokens.grant(&headers(values)).err();
            let code = got.as_ref().map(wick_package::Reason::code);
            assert_eq!(code, want, "{values:?}");
        }
        let long = format!("Bearer {}", "x".repeat(MAX_TOKEN + 1));
        assert!(matches!(tokens.grant(&headers(&[&long])), Err(Failure::NoToken)));
        let none = Tokens::parse(b"").unwrap();
        assert!(matches!(none.grant(&headers(&["Bearer x"])), Err(Failure::UnknownToken)));
    }

    proptest! {
        #[test]
        fn no_header_panics_or_lets_in(value in any::<Vec<u8>>(), scheme in any::<bool>()) {
            let scheme = if scheme { &b"Bearer "[..] } else { b"" };
            if let Ok(value) = HeaderValue::from_bytes(&[scheme, &value].concat()) {
                let headers = [(header::AUTHORIZATION, value)].into_iter().collect();
                let tokens = Tokens::parse(entry("x", "secret", "models = []").as_bytes());
                prop_assert!(tokens.unwrap().grant(&headers).is_err());
            }
        }
    }

    #[test]
    fn a_mistake_in_the_file_is_named_and_no_token_repeated() {
        let table = [
            (entry("a", "x", ""), "models"),
            (entry("a", "x", "models = [\"a*b\"]"), "only possible at the end"),
            (entry("a", "x", "models = [\"**\"]"), "only possible at the end"),
            (entry("a", "x", "models = [\"\"]"), "has no name"),
            (entry("a", "x", "models = []\nmodel = 1"), "model"),
            (entry("", "x", "models = []"), "has no name"),
            ([entry("a", "x", "models=[]"), entry("a", "y", "models=[]")].concat(), "called `a`"),
            ([entry("a", "x", "models=[]"), entry("b", "x", "models=[]")].concat(), "of another"),
            ("[[token]]\nname='a'\nsha256='abc'\nmodels=[]".to_owned(), "64 hexadecimal"),
            (format!("[[token]]\nname='a'\nsha256='+{}'\nmodels=[]", "0".repeat(63)), "64 hex"),
            ("token = 3".to_owned(), "token"),
        ];
        for (file, want) in table {
            let error = Tokens::parse(file.as_bytes()).unwrap_err();
            assert!(error.contains(want), "{file}: {error}");
        }
    }
}
