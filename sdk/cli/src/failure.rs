//! What a command reports when it fails: a message, its causes, a stable code, what to
//! do about it, and how the process ends.

use std::error::Error;
use std::fmt::Display;
use std::path::Path;

use serde_json::{Map, Value};
use wick_package::{OpenError, Reason};
use wick_registry::{BundleError, LoadError, StoreError};
use wick_serve::RepositoryError;

use crate::exit::Exit;
use crate::output::{self, Format};

/// What every command returns.
pub type Outcome<T = ()> = Result<T, Failure>;

/// A command that did not do what it was asked.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    code: Box<str>,
    message: Box<str>,
    causes: Vec<String>,
    help: Option<Box<str>>,
    /// More fields of the JSON form. Few failures have any, and results stay small.
    details: Option<Box<Map<String, Value>>>,
}

// === impl Failure ===

impl Failure {
    pub fn new(exit: Exit, code: impl Into<Box<str>>, message: impl Display) -> Self {
        Self {
            exit,
            code: code.into(),
            message: message.to_string().into(),
            causes: Vec::new(),
            help: None,
            details: None,
        }
    }

    /// A flag or argument that is wrong.
    pub fn usage(message: impl Display) -> Self {
        Self::new(Exit::Usage, "usage", message)
    }

    /// An input for a model that is wrong.
    pub fn input(message: impl Display) -> Self {
        Self::new(Exit::BadData, "bad-input", message)
    }

    /// An error of the runtime, which has a code of its own.
    pub fn of<E: Error + Reason>(error: &E) -> Self {
        let code = error.code();
        let mut failure = Self::new(exit_of(code), code, error).caused_by(error.source());
        failure.help = help_of(code).map(Into::into);
        failure
    }

    /// A package that can't be opened; all its mistakes are in the message.
    pub fn open(error: &OpenError) -> Self {
        match error {
            OpenError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                Self::new(Exit::NotFound, "not-found", error)
                    .caused_by(error.source())
                    .help("name a package directory, an OCI layout or its tar")
            }
            OpenError::Manifest(errors) => {
                let mistakes = serde_json::to_value(errors.mistakes()).unwrap_or_default();
                Self::of(error).detail("mistakes", mistakes)
            }
            _ => Self::of(error),
        }
    }

    /// An image of the store that can't be used.
    pub fn stored(error: &StoreError) -> Self {
        match error {
            StoreError::Open(error) => Self::open(error),
            _ => Self::of(error),
        }
    }

    /// A bundle that was not written.
    pub fn bundle(error: &BundleError) -> Self {
        match error {
            BundleError::Store(error) => Self::stored(error),
            BundleError::Write(error) => Self::of(error),
        }
    }

    /// A file that was not loaded.
    pub fn load(error: &LoadError) -> Self {
        match error {
            LoadError::Open(error) => Self::open(error),
            LoadError::Store(error) => Self::stored(error),
            _ => Self::of(error),
        }
    }

    /// A model that could not be served.
    pub fn repository(error: &RepositoryError) -> Self {
        match error {
            RepositoryError::Open { source, .. } => Self::open(source),
            RepositoryError::Load { source, .. } => Self::of(source),
            _ => Self::of(error),
        }
    }

    /// Say which file it is about, where the error does not know.
    #[must_use]
    pub fn about(mut self, path: &Path) -> Self {
        self.message = format!("{}: {}", path.display(), self.message).into();
        self
    }

    /// What to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<Box<str>>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Add an error and its sources as causes.
    #[must_use]
    pub fn caused_by(mut self, mut source: Option<&(dyn Error + 'static)>) -> Self {
        while let Some(error) = source {
            let text = error.to_string();
            // Transparent wrappers say the same thing twice.
            if self.causes.last().map_or(&*self.message, String::as_str) != text {
                self.causes.push(text);
            }
            source = error.source();
        }
        self
    }

    /// Add a field to the JSON form.
    #[must_use]
    pub fn detail(mut self, key: &str, value: Value) -> Self {
        self.details.get_or_insert_default().insert(key.to_owned(), value);
        self
    }

    /// One word that says what went wrong.
    pub fn code(&self) -> &str {
        &self.code
    }

    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// Print it: to people on stderr, to programs as JSON on stdout.
    pub fn report(&self, format: Format) {
        match format {
            Format::Json => output::json(&self.to_json()),
            Format::Human | Format::Raw => eprint!("{}", self.to_text()),
        }
    }

    /// Message, causes and help on one line, for logs.
    pub fn to_line(&self) -> String {
        let mut text = self.message.to_string();
        for cause in &self.causes {
            text.push_str(&format!(": {cause}"));
        }
        if let Some(help) = &self.help {
            text.push_str(&format!("; {help}"));
        }
        text
    }

    fn to_json(&self) -> Value {
        let mut json = Map::new();
        json.insert("error".into(), (*self.message).into());
        json.insert("code".into(), (*self.code).into());
        json.insert("exit".into(), self.exit.number().into());
        if !self.causes.is_empty() {
            json.insert("causes".into(), self.causes.clone().into());
        }
        if let Some(help) = &self.help {
            json.insert("help".into(), (**help).into());
        }
        json.extend(self.details.iter().flat_map(|details| (**details).clone()));
        Value::Object(json)
    }

    fn to_text(&self) -> String {
        let mut text = format!("{} {}\n", output::red("error:"), self.message);
        for cause in &self.causes {
            text.push_str(&format!("  caused by: {cause}\n"));
        }
        if let Some(help) = &self.help {
            text.push_str(&format!("{} {help}\n", output::cyan("help:")));
        }
        text
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        let missing = error.chain().any(|cause| {
            cause
                .downcast_ref::<std::io::Error>()
                .is_some_and(|io| io.kind() == std::io::ErrorKind::NotFound)
        });
        let (exit, code) =
            if missing { (Exit::NotFound, "not-found") } else { (Exit::Failure, "failed") };
        Self::new(exit, code, &error).caused_by(error.source())
    }
}

fn exit_of(code: &str) -> Exit {
    match code {
        "bad-input" | "too-large" | "unavailable" | "deadline" | "cancelled" | "guest-failed"
        | "internal" | "backend-failed" | "unauthorized" | "forbidden" | "source-refused" => {
            Exit::Refused
        }
        "not-found" | "image-not-found" => Exit::NotFound,
        "registry-unreachable"
        | "registry-busy"
        | "registry-failed"
        | "damaged-transfer"
        | "device-unavailable"
        | "device-share"
        | "device-failed"
        | "backend-missing"
        | "graph-unsupported"
        | "not-granted"
        | "unreachable"
        | "broken-answer"
        | "import-busy" => Exit::Unavailable,
        "bad-manifest" | "missing-file" | "not-a-package" | "damaged-layout" | "graph-invalid"
        | "component-invalid" | "component-world" | "warmup-failed" | "warmup-request"
        | "model-twice" | "bad-key" | "bad-signature" | "not-packed" | "no-platform"
        | "unsuitable-image" | "incomplete-image" | "damaged-store" | "other-format"
        | "unknown-format" | "no-single-model" | "model-invalid" | "leaves-folder"
        | "source-too-large" | "wrong-digest" | "damaged-artifact" | "not-a-model" | "bad-file"
        | "weights-elsewhere" => Exit::BadData,
        "bad-settings" | "ambiguous-digest" | "bad-source" => Exit::Usage,
        "cannot-write" | "exists" | "other-signatures" | "output-occupied" | "too-many-blobs"
        | "disk-full" | "store-unusable" => Exit::CannotCreate,
        "unsigned"
        | "signature-by-another"
        | "signature-for-another"
        | "policy-denies"
        | "digest-mismatch" => Exit::Denied,
        _ => Exit::Failure,
    }
}

fn help_of(code: &str) -> Option<&'static str> {
    Some(match code {
        "bad-manifest" => "see docs/wick-toml.md for every key of a wick.toml",
        "graph-unsupported" | "backend-missing" => {
            "see what is installed with `wick backend list`; \
             `wick backend install onnxruntime` adds ONNX Runtime"
        }
        "device-unavailable" => "`wick devices` shows the devices of this machine",
        "device-share" => "lower `min_device_share` in wick.toml, or permit another device",
        "component-world" => {
            "export wick:model/handler, wasi:http/incoming-handler or wasi:cli/run, \
             and build for wasm32-wasip2"
        }
        "component-invalid" => "build the handler again for wasm32-wasip2",
        "unauthorized" => {
            "log in with `docker login` or `podman login`, whose files are read, or give \
             --registry-user and WICK_REGISTRY_PASSWORD"
        }
        "registry-unreachable" => {
            "a registry that speaks plain HTTP is named with --plain-http-for or WICK_PLAIN_HTTP; \
             one with an authority of its own with --registry-ca"
        }
        "damaged-store" => "`wick images --check` says what is damaged",
        "not-granted" => "grant it with --grant-network, --grant-env or --grant-mount",
        "unsigned" => {
            "sign it with `wick sign`, name its envelope with --envelope, or ask its registry \
             again with --pull always"
        }
        "not-packed" => "`wick pack` writes an image; sign and run that",
        "passphrase" => "give it with WICK_KEY_PASSPHRASE or --passphrase-file",
        "guest-failed" => "its own output is in the log: try again with --log-level debug",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn causes_are_listed_once_and_help_comes_last() {
        let error = Err::<(), _>(std::io::Error::other("disk on fire"))
            .context("cannot read wick.toml")
            .unwrap_err();
        let failure = Failure::from(error).help("put it out");
        assert_eq!(failure.exit(), Exit::Failure);
        let lines: Vec<_> = failure.to_text().lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].ends_with("cannot read wick.toml"), "{lines:?}");
        assert_eq!(lines[1], "  caused by: disk on fire");
        assert!(lines[2].ends_with("put it out"));
    }

    #[test]
    fn a_missing_file_has_its_own_exit_code() {
        let missing = std::fs::read("/nothing/here").context("cannot read the model").unwrap_err();
        assert_eq!(Failure::from(missing).exit(), Exit::NotFound);
    }

    #[test]
    fn the_json_form_has_error_and_code() {
        let json = Failure::usage("no such flag").detail("flag", "--x".into()).to_json();
        assert_eq!(json["error"], "no such flag");
        assert_eq!(json["code"], "usage");
        assert_eq!(json["exit"], 64);
        assert_eq!(json["flag"], "--x");
    }
}
