//! What a wick package is: the parsed `wick.toml`, its names, digests and tensor
//! specifications, and its form as an OCI image layout.
//!
//! Text becomes types here, once; the crates above never check a name or a shape
//! of a manifest again. This crate reads a directory or a layout and knows nothing
//! of networks, WebAssembly, inference or async.

mod blob;
mod digest;
mod directory;
mod layout;
mod manifest;
mod mistakes;
mod names;
pub mod oci;
mod open_error;
pub mod pack;
mod package;
mod parse;
mod quantity;
mod reader;
mod reason;
mod reference;
pub mod signature;
mod spelling;
mod tarslice;
mod tensor;

pub use blob::{Blob, BlobReader};
pub use digest::{Digest, DigestError};
pub use layout::{ImageDocuments, Layer, LayerRole, Layout, LayoutError, manifest_of_layer};
pub use manifest::{
    Batch, DeviceKind, FileRole, GraphSpec, Handler, HostPort, Idle, Limits, Manifest, MountWant,
    NamedFile, Variant, Wants, Warmup,
};
pub use mistakes::{ManifestErrors, Mistake};
pub use names::{BackendName, GraphName, MAX_NAME_LEN, NameError, PackageName, RelPath};
pub use open_error::{FileError, FileErrors, FileFault, OpenError};
pub use package::Package;
pub use parse::{MANIFEST_FILE, parse};
pub use reason::{Reason, error_text};
pub use reference::{ImageRef, ImageRefError, Reference, ReferenceError};
pub use tarslice::TarError;
pub use tensor::{Datatype, Dim, MAX_RANK, SpecError, TensorSpec};
