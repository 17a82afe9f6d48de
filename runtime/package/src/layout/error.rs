//! What can be wrong with an image layout.

use crate::digest::Digest;
use crate::reason::Reason;
use crate::tarslice::TarError;

/// An image layout that is damaged, or is not one of a package.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    #[error("reading its {what} failed")]
    Io { what: &'static str, source: std::io::Error },
    #[error("its {what} {digest} is missing: copy the layout again")]
    MissingBlob { what: &'static str, digest: Digest },
    #[error("its {0} is missing: copy the layout again")]
    MissingFile(&'static str),
    #[error("its {what} {digest} has {got} bytes instead of {want}: copy the layout again")]
    Size { what: &'static str, digest: Digest, want: u64, got: u64 },
    #[error("{what} has digest {got} instead of {want}: it was changed or damaged")]
    Digest { what: String, want: Digest, got: Digest },
    #[error("its {what} is not the JSON that it should be")]
    Json { what: &'static str, source: serde_json::Error },
    #[error("its {what} has {len} bytes: at most {most} are read")]
    Long { what: &'static str, len: u64, most: u64 },
    #[error("its layout version is `{0}`: this program knows 1")]
    Version(String),
    #[error("it holds no image")]
    Empty,
    #[error("it holds no image {0}")]
    NoSuchImage(Digest),
    #[error("it holds several images ({}): export one alone", .0.join(", "))]
    Ambiguous(Vec<String>),
    #[error("its index points to indexes more than {0} deep")]
    TooDeep(usize),
    #[error("its {what} has the unknown media type `{media_type}`")]
    MediaType { what: &'static str, media_type: String },
    #[error(
        "it has a compressed layer (`{media_type}`), and weights are mapped where they lie: \
         make the layout with `wick pack`"
    )]
    CompressedLayer { media_type: String },
    #[error("it is compressed with {0}: decompress the file first")]
    Compressed(&'static str),
    #[error("it has {count} layers: at most {most} are read")]
    TooManyLayers { count: usize, most: usize },
    #[error("its index has {count} manifests: at most {most} are read")]
    TooManyManifests { count: usize, most: usize },
    #[error("its manifest and its image config disagree on the layers")]
    Disagree,
    #[error("a tar (its {what}) can't be read")]
    Tar { what: &'static str, source: TarError },
    #[error("`{name}` in a layer {fault}")]
    Entry { name: String, fault: &'static str },
    #[error("its member `{name}` {fault}, which no tool writes: get the file from its maker again")]
    Member { name: String, fault: &'static str },
    #[error("no layer has a wick.toml: it is an image of something else")]
    NoManifest,
    #[error("its wick.toml is not UTF-8 text")]
    NotText,
}

impl Reason for LayoutError {
    fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "unreadable-package",
            Self::NotText => "bad-manifest",
            Self::Version(_)
            | Self::Empty
            | Self::NoSuchImage(_)
            | Self::Ambiguous(_)
            | Self::MediaType { .. }
            | Self::CompressedLayer { .. }
            | Self::Compressed(_)
            | Self::NoManifest => "unsuitable-layout",
            _ => "damaged-layout",
        }
    }
}
