//! Everything that an import can fail by, each with a stable code and what to do about it.

use std::io;
use std::path::PathBuf;

use wick_package::{Digest, ManifestErrors, Reason, RelPath};

use crate::choose::ChooseError;
use crate::format::Format;
use crate::onnx::{InlineError, ModelError, TypeError};

/// An import that did not happen. Nothing is left of it but what the message tells.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("`{text}` is not a source: {why}")]
    Source { text: String, why: String },
    #[error("there is nothing at {path}")]
    NotFound { path: PathBuf },
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("{path} exists and is not empty")]
    Exists { path: PathBuf },
    #[error("{path} is {what}: a package can't take its place")]
    Fixed { path: PathBuf, what: &'static str },
    #[error("another import into {path} is running")]
    Busy { path: PathBuf },
    #[error("{place} is {what}", what = format.what())]
    OtherFormat { place: String, format: Format },
    #[error("{place} holds no model that is recognised")]
    Unknown { place: String },
    #[error("{place} has no single model to take")]
    Choose { place: String, source: ChooseError },
    #[error("{place} is not a model that can be imported")]
    Model { place: String, source: ModelError },
    #[error("the weights of {place} are not complete")]
    Weights { place: String, source: InlineError },
    #[error("the model's own names make no package")]
    Manifest(#[source] ManifestErrors),
    #[error("{path} is a link to {target}, outside of the folder that was named")]
    Link { path: PathBuf, target: PathBuf },
    #[error("{place} has more than {most} files or folders")]
    TooMany { place: String, most: usize },
    #[error("{place} has {len} bytes, and at most {most} are taken")]
    TooLarge { place: String, len: u64, most: u64 },
    #[error("{place} has the digest {got}, and {want} was expected")]
    Digest { place: String, got: Digest, want: Digest },
    #[error("{place} is a damaged artifact: {why}")]
    Artifact { place: String, why: String },
    #[error("{place} names its files in a way that leaves the folder: `{path}`")]
    Hostile { place: String, path: String },
    #[error("{place} has several artifacts: {names}")]
    Several { place: String, names: String },
    #[error("{place} is no model of {system}: {why}")]
    Registry { place: String, system: &'static str, why: String },
    #[error("the MLflow model {place} has the flavours {flavours}, and none of them is onnx")]
    Flavour { place: String, flavours: String, advice: &'static str },
    #[error("{place} answered {status}{detail}")]
    Refused { place: String, status: u16, detail: String },
    #[error("cannot reach {place}")]
    Unreachable { place: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("{place} broke off {tries} times without another byte; {have} bytes are here")]
    Cut { place: String, tries: u32, have: u64, kept: PathBuf },
    #[error("{path} cannot be used for TLS: {why}")]
    Tls { path: PathBuf, why: String },
}

// === impl ImportError ===

impl ImportError {
    pub(crate) fn read(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| match source.kind() {
            io::ErrorKind::NotFound => Self::NotFound { path },
            _ => Self::Read { path, source },
        }
    }

    pub(crate) fn write(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Write { path, source }
    }

    pub(crate) fn missing(place: &str, path: &RelPath) -> Self {
        Self::NotFound { path: format!("{}/{path}", place.trim_end_matches('/')).into() }
    }

    /// Whether the same command, given again, goes on where this one ended.
    pub fn is_resumable(&self) -> bool {
        match self {
            Self::Cut { .. } | Self::Unreachable { .. } => true,
            Self::Write { source, .. } => source.kind() == io::ErrorKind::StorageFull,
            Self::Refused { status, .. } => matches!(status, 408 | 429 | 500..=599),
            _ => false,
        }
    }

    /// What to do about it.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            Self::OtherFormat { format, .. } => format.advice().to_owned(),
            Self::Flavour { advice, .. } => (*advice).to_owned(),
            Self::Unknown { .. } => "wick takes ONNX models: export yours to ONNX first".to_owned(),
            Self::Choose { source, .. } => match source {
                ChooseError::NoModel { .. } => "export the model to ONNX first".to_owned(),
                _ => "name one of them with --model PATH".to_owned(),
            },
            Self::Exists { .. } => "choose another folder with -o".to_owned(),
            Self::Fixed { .. } => "name the folder that it leads to, or a new one in it".to_owned(),
            Self::Busy { .. } => "wait for it, or choose another folder with -o".to_owned(),
            Self::Model { source, .. } => model_help(source)?.to_owned(),
            Self::Weights { .. } => {
                "copy the model together with all files beside it that hold its weights".to_owned()
            }
            Self::Link { .. } => {
                "name the folder that the link leads to, or follow it with --follow-links"
                    .to_owned()
            }
            Self::TooLarge { .. } => "permit more with --max-size".to_owned(),
            Self::Digest { .. } => {
                "the file is not the one that the digest is of: nothing was imported".to_owned()
            }
            Self::Several { .. } => "name one of them with --reference".to_owned(),
            Self::Refused { status: 401 | 403, .. } => {
                "check the credentials: docs/import.md says where each source takes them from"
                    .to_owned()
            }
            Self::Cut { kept, .. } => {
                format!(
                    "give the same command again to go on; what arrived is in {}",
                    kept.display()
                )
            }
            Self::Write { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "make room, and give the same command again to go on".to_owned()
            }
            _ => return None,
        })
    }
}

fn model_help(error: &ModelError) -> Option<&'static str> {
    Some(match error {
        ModelError::Type(TypeError::NoTensor { .. }) => {
            "export it with tensors only; with skl2onnx: options={\"zipmap\": False}"
        }
        ModelError::Type(TypeError::Datatype { .. }) => {
            "cast the input or output to a type of the protocol before you export"
        }
        ModelError::Walk(_) | ModelError::NoGraph | ModelError::NoOutputs => {
            "is it an ONNX file, and was it copied whole? `onnx.checker.check_model` tells"
        }
        ModelError::Outside { .. } => {
            "save it again with `onnx.save(model, path, save_as_external_data=True, location=NAME)`"
        }
        _ => return None,
    })
}

impl Reason for ImportError {
    fn code(&self) -> &'static str {
        match self {
            Self::Source { .. } => "bad-source",
            Self::NotFound { .. } => "not-found",
            Self::Refused { status: 404, .. } => "not-found",
            Self::Read { .. } => "unreadable-source",
            Self::Write { .. } => "cannot-write",
            Self::Exists { .. } | Self::Fixed { .. } => "exists",
            Self::Busy { .. } => "import-busy",
            Self::OtherFormat { .. } | Self::Flavour { .. } => "other-format",
            Self::Unknown { .. } => "unknown-format",
            Self::Choose { .. } | Self::Several { .. } => "no-single-model",
            Self::Model { .. } | Self::Weights { .. } | Self::Manifest(_) => "model-invalid",
            Self::Link { .. } | Self::Hostile { .. } => "leaves-folder",
            Self::TooMany { .. } | Self::TooLarge { .. } => "source-too-large",
            Self::Digest { .. } => "wrong-digest",
            Self::Artifact { .. } => "damaged-artifact",
            Self::Registry { .. } => "not-a-model",
            Self::Refused { .. } => "source-refused",
            Self::Unreachable { .. } => "unreachable",
            Self::Cut { .. } => "broken-answer",
            Self::Tls { .. } => "bad-file",
        }
    }
}
