//! Compiled components on disk, so that a start reads them instead of compiling.
//!
//! A file of this folder becomes native code of this process. So the folder and the
//! file must belong to this user or to root and be writable by nobody else, and the
//! bytes must have the digest that was recorded when they were written. What does not
//! is compiled again and replaced. A cache that can't be used is a warning, never an
//! error; one that can only be read, as that of a node is for its pods, is used.
//!
//! ```text
//! KEY.ref        text: the digest of the code compiled for KEY
//! DIGEST.cwasm   code; its name is the digest of its bytes
//! ```
//!
//! Both are written to a temporary file and renamed, code first. Code has its own
//! digest as its name, so that processes that write at the same time write the same.

use std::fs::File;
use std::hash::{Hash as _, Hasher};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Access, AtFlags, FileType, Mode, OFlags};
use sha2::{Digest as _, Sha256};
use wasmtime::Engine;
use wick_package::Digest;

/// Largest entry. The largest components (Python) compile to about 60 MiB.
const MAX_ENTRY: u64 = 256 << 20;

/// Entries that a folder keeps; the oldest go first. A node has dozens of models.
const MAX_ENTRIES: usize = 128;

/// Bytes of a reference: a digest has 71.
const MAX_REFERENCE: u64 = 128;

/// Bits of a mode that let others write.
const OTHERS_WRITE: u32 = 0o022;

/// Bits of a mode that let others see what is in a folder.
const OTHERS_READ: u32 = 0o055;

/// Changed when the layout of the folder changes.
const FORMAT: u32 = 1;

/// An open cache folder.
pub(crate) struct Cache {
    folder: OwnedFd,
    path: PathBuf,
    writable: bool,
    /// Files are as open as their folder.
    file_mode: Mode,
    /// Why code was not kept, the first time.
    unkept: OnceLock<io::Error>,
}

/// Names an entry: the engine's settings and version, and the component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key(String);

/// Code that was checked. It stays open, so that nobody can exchange it.
pub(crate) struct Entry {
    file: File,
}

struct KeyHasher(Sha256);

// === impl Key ===

impl Key {
    /// The key of a component or core module with `digest`.
    pub(crate) fn new(engine: &Engine, kind: &str, digest: &Digest) -> Self {
        let mut hasher = KeyHasher(Sha256::new());
        FORMAT.hash(&mut hasher);
        engine.precompile_compatibility_hash().hash(&mut hasher);
        kind.hash(&mut hasher);
        digest.hash(&mut hasher);
        Self(Digest::from_hasher(hasher.0).hex())
    }

    fn reference(&self) -> String {
        format!("{}.ref", self.0)
    }
}

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        // Keys take the whole digest; nobody asks for this.
        0
    }
}

// === impl Cache ===

impl Cache {
    /// Open the folder; make it, for this user only, if it is not there.
    ///
    /// # Errors
    /// It can't be made or read, or somebody else can write in it.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        if !path.is_dir() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(path, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&folder)?;
        check_owner(&stat)?;
        let shared = stat.st_mode & OTHERS_READ == OTHERS_READ;
        let file_mode = Mode::from_raw_mode(if shared { 0o644 } else { 0o600 });
        let (access, flags) = (Access::WRITE_OK, AtFlags::EACCESS);
        let writable = rustix::fs::accessat(&folder, ".", access, flags).is_ok();
        let unkept = OnceLock::new();
        Ok(Self { folder, path: path.to_owned(), writable, file_mode, unkept })
    }

    /// Find checked code. None if there is none, or none that can be trusted.
    pub(crate) fn find(&self, key: &Key) -> Option<Entry> {
        match self.read(key) {
            Ok(entry) => Some(entry),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                let folder = self.path.display();
                tracing::warn!(%folder, key = key.0, %error, "a compiled component is refused");
                None
            }
        }
    }

    /// Keep code for the next start.
    pub(crate) fn store(&self, key: &Key, code: &[u8]) {
        if !self.writable {
            tracing::debug!(folder = %self.path.display(), "the cache can only be read");
            return;
        }
        if let Err(error) = self.write(key, code) {
            let folder = self.path.display();
            tracing::warn!(
                %folder, key = key.0, %error,
                "a compiled component is not kept; each start compiles it again"
            );
            // The first failure says what is wrong with the folder.
            let _ = self.unkept.set(error);
        }
    }

    /// Why code was not kept, if some was not.
    pub(crate) fn unkept(&self) -> Option<&io::Error> {
        self.unkept.get()
    }

    fn read(&self, key: &Key) -> io::Result<Entry> {
        let mut reference = self.checked(&key.reference())?;
        let mut text = String::new();
        (&mut reference).take(MAX_REFERENCE).read_to_string(&mut text)?;
        let want =
            Digest::from_str(text.trim_end()).map_err(|error| damaged(&error.to_string()))?;
        let mut file = self.checked(&code_name(&want))?;
        let mut hasher = Sha256::new();
        io::copy(&mut file, &mut hasher)?;
        if Digest::from_hasher(hasher) != want {
            return Err(damaged("its bytes have another digest than recorded"));
        }
        Ok(Entry { file })
    }

    /// Open a file of the folder that only this user or root can have written.
    fn checked(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.folder, name, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd)?;
        check_owner(&stat)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(damaged("it is not a file"));
        }
        if u64::try_from(stat.st_size).is_ok_and(|size| size > MAX_ENTRY) {
            return Err(damaged("it is too large"));
        }
        Ok(File::from(fd))
    }

    fn write(&self, key: &Key, code: &[u8]) -> io::Result<()> {
        if code.len() as u64 > MAX_ENTRY {
            return Err(io::Error::other(format!("it is larger than {MAX_ENTRY} bytes")));
        }
        self.make_room()?;
        let digest = Digest::of(code);
        self.replace(&code_name(&digest), code)?;
        self.replace(&key.reference(), digest.to_string().as_bytes())?;
        Ok(rustix::fs::fsync(&self.folder)?)
    }

    /// Write a file so that it is there whole or not at all, whoever else writes it.
    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let temporary = format!("tmp-{}-{number}", std::process::id());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        // Left behind by a process that ended while it wrote and had this one's id.
        let _ = rustix::fs::unlinkat(&self.folder, &temporary, AtFlags::empty());
        let fd = rustix::fs::openat(&self.folder, &temporary, flags, self.file_mode)?;
        let mut file = File::from(fd);
        let written = file
            .write_all(bytes)
            .and_then(|()| file.sync_all())
            .and_then(|()| Ok(rustix::fs::renameat(&self.folder, &temporary, &self.folder, name)?));
        if written.is_err() {
            let _ = rustix::fs::unlinkat(&self.folder, &temporary, AtFlags::empty());
        }
        written
    }

    /// Remove the oldest files if there are too many. Those in use stay mapped.
    fn make_room(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let stat = rustix::fs::statat(&self.folder, name, AtFlags::SYMLINK_NOFOLLOW);
            // Another process may have removed it meanwhile.
            if let Ok(stat) = stat
                && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            {
                files.push((stat.st_mtime, name.to_owned()));
            }
        }
        // Two files an entry, and room for the one that comes.
        let keep = 2 * (MAX_ENTRIES - 1);
        if files.len() > keep {
            files.sort_unstable();
            for (_, name) in &files[..files.len() - keep] {
                let _ = rustix::fs::unlinkat(&self.folder, name, AtFlags::empty());
            }
        }
        Ok(())
    }
}

// === impl Entry ===

impl Entry {
    /// A path to the very file that was checked, whatever now has its name.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }

    /// The code in memory, for systems without `/proc`.
    pub(crate) fn bytes(&mut self) -> io::Result<Vec<u8>> {
        use std::io::Seek as _;
        self.file.rewind()?;
        let mut bytes = Vec::new();
        (&mut self.file).take(MAX_ENTRY).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

fn code_name(digest: &Digest) -> String {
    format!("{}.cwasm", digest.hex())
}

fn check_owner(stat: &rustix::fs::Stat) -> io::Result<()> {
    let user = rustix::process::geteuid().as_raw();
    let refuse = |text: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    // Root could do anything else as well.
    if stat.st_uid != user && stat.st_uid != 0 {
        return refuse(format!("it belongs to user {}, and this is user {user}", stat.st_uid));
    }
    if stat.st_mode & OTHERS_WRITE != 0 {
        return refuse(format!("others may write it (mode {:o})", stat.st_mode & 0o7777));
    }
    Ok(())
}

fn damaged(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.to_owned())
}
