//! What the node offers to workers: the executable, the backends and the cache. Read from the
//! environment once; the executable is opened once and started by its descriptor, so that all
//! containers of a pod run the same one, even while it is being upgraded.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::Context as _;
use wick_package::signature::{NODE_POLICY, NODE_STORE};

use crate::policy::Place;

const CACHE: &str = "/var/lib/wick/cache";
const BACKENDS: [&str; 2] = ["/var/lib/wick/backends", "/usr/lib/wick/backends"];

/// What the Vulkan loader calls its list of drivers' files.
const DRIVERS: &str = "VK_DRIVER_FILES";

/// The folder of the cache that remembers which files were hashed.
const CHECKED: &str = "checked";

/// Where a worker looks for programs: it starts none, and backends may ask.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The node, as the shim's environment describes it.
#[derive(Debug)]
pub struct Host {
    worker: Option<PathBuf>,
    pub cache: Option<PathBuf>,
    pub backends: Option<PathBuf>,
    pub policy: Place,
    /// Where libraries of drivers are that the loader does not find by itself, with colons between.
    libraries: Option<PathBuf>,
    /// Files of Vulkan's drivers that are used instead of those in the usual folders.
    drivers: Option<PathBuf>,
    opened: OnceLock<Executable>,
}

/// The worker's executable.
#[derive(Debug)]
pub struct Executable {
    file: OwnedFd,
    /// Changes when another executable is installed.
    pub identity: String,
}

// === impl Host ===

impl Host {
    pub fn from_env() -> Self {
        let env = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let present = |path: &PathBuf| path.is_dir();
        let cache = env("WICK_CACHE").or_else(|| Some(CACHE.into())).filter(|p| owned_by_us(p));
        let usual = || BACKENDS.map(PathBuf::from).into_iter().find(present);
        let backends = env("WICK_BACKENDS").filter(present).or_else(usual);
        let named = env("WICK_POLICY");
        let policy = Place {
            named: named.is_some(),
            policy: named.unwrap_or_else(|| NODE_POLICY.into()),
            signatures: env("WICK_SIGNATURES").unwrap_or_else(|| NODE_STORE.into()),
            checked: cache.as_ref().map(|cache: &PathBuf| cache.join(CHECKED)),
        };
        let (libraries, drivers) = (env("WICK_LIBRARIES").and_then(absolute), env(DRIVERS));
        let (worker, opened) = (env("WICK_WORKER"), OnceLock::new());
        Self { worker, cache, backends, policy, libraries, drivers, opened }
    }

    /// The environment of a process of ours: nothing of the shim's own, but for what says where the node's
    /// drivers are. containerd's `LD_LIBRARY_PATH` has an empty element, which would make a loader search the
    /// bundle.
    pub fn environment(&self) -> Vec<CString> {
        let of = |name: &str, value: &Option<PathBuf>| {
            let value = value.as_ref()?.as_os_str().as_bytes();
            CString::new([name.as_bytes(), b"=", value].concat()).ok()
        };
        let drivers = [of("LD_LIBRARY_PATH", &self.libraries), of(DRIVERS, &self.drivers)];
        CString::new(PATH).into_iter().chain(drivers.into_iter().flatten()).collect()
    }

    /// The worker's executable: `WICK_WORKER`, else `wick` beside the shim, else on PATH.
    ///
    /// # Errors
    /// There is none.
    pub fn executable(&self) -> anyhow::Result<&Executable> {
        if let Some(found) = self.opened.get() {
            return Ok(found);
        }
        let path = self.find().context(
            "there is no `wick` beside the shim and none on PATH: install it, or name it in the \
             shim's environment as WICK_WORKER",
        )?;
        let opened = Executable::open(&path)
            .with_context(|| format!("open the worker {}", path.display()))?;
        Ok(self.opened.get_or_init(|| opened))
    }

    fn find(&self) -> Option<PathBuf> {
        if let Some(named) = &self.worker {
            return Some(named.clone());
        }
        let beside = std::env::current_exe().ok().map(|exe| exe.with_file_name("wick"));
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let on_path = std::env::split_paths(&paths).map(|folder| folder.join("wick"));
        beside.into_iter().chain(on_path).find(|path| path.is_file())
    }
}

// === impl Executable ===

impl Executable {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let about = file.metadata()?;
        if !about.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let identity = format!(
            "{:x}-{:x}-{:x}",
            about.ino(),
            about.size(),
            about.mtime_nsec() ^ about.mtime()
        );
        Ok(Self { file: file.into(), identity })
    }

    /// # Errors
    /// No descriptors are left.
    pub fn file(&self) -> io::Result<OwnedFd> {
        self.file.try_clone()
    }
}

/// The shim's own executable, for the pause process.
///
/// # Errors
/// `/proc` is not mounted.
pub fn own_executable() -> io::Result<OwnedFd> {
    Ok(File::open("/proc/self/exe")?.into())
}

/// Where the shim's executable is, for containerd. While it is replaced there may be none.
pub fn own_path() -> Option<PathBuf> {
    let path = std::env::current_exe().ok()?;
    // An upgrade has put another in its place, which is as good.
    let text = path.to_str()?.trim_end_matches(" (deleted)");
    Some(PathBuf::from(text)).filter(|path| path.is_file())
}

/// The absolute ones of several folders: any other would be looked for in the working folder.
fn absolute(folders: PathBuf) -> Option<PathBuf> {
    let folders = std::env::split_paths(&folders).filter(|folder| folder.is_absolute());
    let joined = std::env::join_paths(folders).ok()?;
    (!joined.is_empty()).then(|| joined.into())
}

/// Code from a cache is executed: the folder must be this user's and nobody else's to write.
fn owned_by_us(path: &Path) -> bool {
    let ours = |about: std::fs::Metadata| {
        let user = rustix::process::geteuid().as_raw();
        about.is_dir() && about.uid() == user && about.mode() & 0o022 == 0
    };
    path.symlink_metadata().is_ok_and(ours)
}
