//! What a node has of its own, for its pods: the store of signatures, and the policy. The shim reads
//! both, and so does `wick run`.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use wick_package::signature::{
    MAX_POLICY, NODE_STORE, NodeStore, Policy, Signature, is_absent, read_trusted,
};
use wick_package::{Digest, Reference};
use wick_registry::Store;

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::{policy, signatures};

/// Everybody reads, and only its owner writes: the shim takes no other policy.
const POLICY_MODE: u32 = 0o644;
const FOLDER_MODE: u32 = 0o755;

/// Flags of commands that bring images with their signatures.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Signatures")]
pub struct NodeArgs {
    /// Put the signatures also into this node's store, for pods
    #[arg(long)]
    node: bool,
    /// The node's store of signatures
    #[arg(long, value_name = "DIR", env = "WICK_SIGNATURES", default_value = NODE_STORE)]
    signatures: PathBuf,
}

/// What was put into a node's store.
#[derive(Debug, Clone, Serialize)]
pub struct Filled {
    store: PathBuf,
    /// How many each image has.
    signatures: usize,
    /// Images that have none.
    unsigned: Vec<String>,
}

/// A policy that takes its place on the node.
#[derive(Debug)]
pub struct Install<'a> {
    text: &'a str,
    path: &'a Path,
    /// It is not in force yet.
    changes: bool,
}

// === impl NodeArgs ===

impl NodeArgs {
    pub fn wanted(&self) -> bool {
        self.node
    }

    pub fn place(&self) -> &Path {
        &self.signatures
    }

    /// Put the signatures of images of the store into the node's, if that is wanted; `more` are of
    /// the image with that digest.
    ///
    /// # Errors
    /// The node's store can't be written, or an image has too many signatures.
    pub fn fill(
        &self,
        store: &Store,
        images: &[(Reference, Digest)],
        more: &[(Digest, Signature)],
    ) -> Outcome<Option<Filled>> {
        if !self.node {
            return Ok(None);
        }
        let node = NodeStore::new(&self.signatures, user());
        let place = self.signatures.clone();
        let mut filled = Filled { store: place, signatures: 0, unsigned: Vec::new() };
        for (name, digest) in images {
            let more = more.iter().filter(|(of, _)| of == digest);
            let more = more.map(|(_, signature)| signature.clone()).collect();
            match signatures::for_node(store, *digest, more)? {
                Some(envelope) => {
                    filled.signatures += envelope.signatures().len();
                    node.put(envelope).map_err(|error| Failure::of(&error))?;
                }
                None => filled.unsigned.push(name.to_string()),
            }
        }
        Ok(Some(filled))
    }
}

// === impl Filled ===

impl Filled {
    /// Say it to people.
    pub fn report(&self) {
        for image in &self.unsigned {
            let warning = output::red("warning:");
            eprintln!("{warning} {image} has no signatures: a policy that wants one won't run it");
        }
        if self.signatures > 0 {
            let (count, store) = (self.signatures, self.store.display());
            eprintln!("{count} signature{} in {store}", if count == 1 { "" } else { "s" });
        }
    }
}

// === impl Install ===

impl<'a> Install<'a> {
    /// Look whether the policy of `file` may be put at `path`. Another that is there is only
    /// replaced if that is wanted.
    ///
    /// # Errors
    /// There is no policy, it has mistakes, another is in its place, or others could write there.
    pub fn plan(
        file: &Path,
        policy: Option<&'a str>,
        path: &'a Path,
        replace: bool,
    ) -> Outcome<Self> {
        let Some(text) = policy else {
            let text = format!("{} has no policy", file.display());
            return Err(Failure::new(Exit::BadData, "no-policy", text)
                .help("make it with `wick bundle --policy`, or leave out --install-policy"));
        };
        let alone = |_: &str| -> io::Result<String> {
            Err(io::Error::other("a policy that travels has its keys in it"))
        };
        Policy::parse(text, file, &alone).map_err(|errors| policy::mistakes(&errors))?;
        let absent = is_absent(path, user()).map_err(|error| untrusted(&error))?;
        let changes = absent || {
            let there = read_trusted(path, user(), MAX_POLICY);
            there.map_err(|error| untrusted(&error))? != text
        };
        if changes && !absent && !replace {
            let text = format!("{} is another policy than that of the file", path.display());
            return Err(Failure::new(Exit::CannotCreate, "exists", text)
                .help("compare them; --replace puts the file's in its place"));
        }
        Ok(Self { text, path, changes })
    }

    /// Whether the node's policy becomes another.
    pub fn changes(&self) -> bool {
        self.changes
    }

    pub fn path(&self) -> &Path {
        self.path
    }

    /// Put it in its place, whole or not at all. From then on it is in force.
    ///
    /// # Errors
    /// It can't be written.
    pub fn put(&self) -> Outcome {
        if !self.changes {
            return Ok(());
        }
        write(self.path, self.text).map_err(|error| {
            let text = format!("cannot write {}", self.path.display());
            Failure::new(Exit::CannotCreate, "cannot-write", text).caused_by(Some(&error))
        })
    }

    /// Say it to people.
    pub fn report(&self) {
        let path = self.path.display();
        match self.changes {
            true => eprintln!("the policy in {path} is in force from the next start on"),
            false => eprintln!("{path} is this policy already"),
        }
        if user() != 0 {
            let warning = output::red("warning:");
            eprintln!("{warning} {path} does not belong to root, so the shim won't take it");
        }
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    // A link stays one, and its target is replaced.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().set_permissions(fs::Permissions::from_mode(POLICY_MODE))?;
    file.as_file().sync_all()?;
    file.persist(&path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}

fn untrusted(error: &wick_package::signature::TrustError) -> Failure {
    Failure::new(Exit::CannotCreate, "untrusted-file", error)
        .caused_by(std::error::Error::source(error))
}

/// Who runs this.
fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}
