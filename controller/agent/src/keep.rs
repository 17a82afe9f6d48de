//! What a site keeps on its disk. Each file is written whole: beside the old one, synced, renamed, and
//! the folder synced, so that a loss of power leaves the old or the new one.
//!
//! ```text
//!  HOME/key.pem     the site's key, readable for its user only; it is made once
//!  HOME/site.json   who it is, its certificate, whom it trusts; its presence says "enrolled"
//!  HOME/kept.json   what it serves, what it is to serve, and the hub's keys
//!  HOME/store       images
//!  HOME/lock        held while an agent runs
//! ```

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use wick_fleet::SiteName;
use wick_fleet::converge::Kept;
use wick_fleet::enrol::Enrolled;
use wick_package::signature::PrivateKey;
use zeroize::Zeroizing;

const KEY: &str = "key.pem";
const SITE: &str = "site.json";
const KEPT: &str = "kept.json";
const STORE: &str = "store";
const LOCK: &str = "lock";

/// Largest file that is read: two generations of 64 models with long names have 100 KiB.
const MAX_FILE: u64 = 4 << 20;

/// A site's folder.
#[derive(Debug, Clone)]
pub struct Home {
    root: PathBuf,
}

/// Who a site is. It is written when it enrols and when it renews its certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteFile {
    pub site: SiteName,
    pub hub: String,
    /// Whom the hub's own certificate is signed by, where the system does not know it; PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub_ca: Option<String>,
    pub broker: String,
    pub certificate: String,
    pub ca: String,
    /// By the site's clock when it got the certificate, in seconds since 1970.
    pub obtained: u64,
    pub not_after: u64,
    /// What models may have together.
    pub memory: u64,
    pub disk: u64,
    /// A hash of the token that it has enrolled with.
    #[serde(default)]
    pub token: String,
}

/// A folder that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    #[error("cannot use {path}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} is damaged ({why}): enrol this site again with a new token")]
    Damaged { path: PathBuf, why: String },
    #[error("{path} is of no enrolled site: run `wick agent enrol` first")]
    NotEnrolled { path: PathBuf },
    #[error("an agent runs with {path} already: stop it, or name another folder with --state")]
    Busy { path: PathBuf },
    #[error("no key can be made: the system gives no random bytes")]
    Random,
}

/// Held by the one agent that runs with a folder.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "the lock lasts as long as the file")] File);

// === impl Home ===

impl Home {
    /// The folder, made if need be.
    ///
    /// # Errors
    /// It can't be made.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, KeepError> {
        let root = root.into();
        let made = fs::create_dir_all(&root);
        let made = made.and_then(|()| fs::set_permissions(&root, Permissions::from_mode(0o700)));
        made.map_err(|source| KeepError::Io { path: root.clone(), source })?;
        Ok(Self { root })
    }

    /// The folder as it is, to look at.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn store(&self) -> PathBuf {
        self.root.join(STORE)
    }

    /// Be the only agent with this folder, until it is dropped.
    ///
    /// # Errors
    /// Another one is.
    pub fn lock(&self) -> Result<Lock, KeepError> {
        let path = self.root.join(LOCK);
        let io = |source| KeepError::Io { path: path.clone(), source };
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(io)?;
        match file.try_lock() {
            Ok(()) => Ok(Lock(file)),
            Err(fs::TryLockError::WouldBlock) => Err(KeepError::Busy { path: self.root.clone() }),
            Err(fs::TryLockError::Error(source)) => Err(io(source)),
        }
    }

    /// Who this site is.
    ///
    /// # Errors
    /// It is not enrolled, or the file is damaged.
    pub fn site(&self) -> Result<SiteFile, KeepError> {
        self.json(SITE)
    }

    /// What this site has and is to have.
    ///
    /// # Errors
    /// It is not enrolled, or the file is damaged.
    pub fn kept(&self) -> Result<Kept, KeepError> {
        self.json(KEPT)
    }

    /// The site's key, as it is in the file.
    ///
    /// # Errors
    /// It is not enrolled, or the file is damaged.
    pub fn key(&self) -> Result<(PrivateKey, Zeroizing<String>), KeepError> {
        let text = Zeroizing::new(self.read(KEY)?);
        let key = PrivateKey::from_pem(&text, None);
        Ok((key.map_err(|error| self.damaged(KEY, &error))?, text))
    }

    /// The site's key, which is made where there is none.
    ///
    /// # Errors
    /// It can't be written, or the file is damaged.
    pub fn own_key(&self) -> Result<(PrivateKey, Zeroizing<String>), KeepError> {
        if self.root.join(KEY).exists() {
            return self.key();
        }
        let mut seed = Zeroizing::new([0; 32]);
        rustls::crypto::ring::default_provider()
            .secure_random
            .fill(&mut *seed)
            .map_err(|_| KeepError::Random)?;
        let key = PrivateKey::from_seed(&seed);
        let pem = key.to_pem(None).map_err(|_| KeepError::Random)?;
        self.write(KEY, pem.as_bytes())?;
        Ok((key, pem))
    }

    /// Take over what the hub has said. What the site has goes on being served.
    ///
    /// # Errors
    /// It can't be written.
    pub fn join(&self, site: &SiteFile, enrolled: &Enrolled) -> Result<(), KeepError> {
        let kept = match self.kept() {
            Ok(kept) => Kept { ring: enrolled.ring.clone(), ..kept },
            Err(_) => Kept::enrolled(enrolled.ring.clone()),
        };
        self.keep(&kept)?;
        self.know(site)
    }

    /// # Errors
    /// It can't be written.
    pub fn know(&self, site: &SiteFile) -> Result<(), KeepError> {
        self.write(SITE, &serde_json::to_vec_pretty(site).unwrap_or_default())
    }

    /// # Errors
    /// It can't be written.
    pub fn keep(&self, kept: &Kept) -> Result<(), KeepError> {
        self.write(KEPT, &serde_json::to_vec(kept).unwrap_or_default())
    }

    fn json<T: DeserializeOwned>(&self, name: &str) -> Result<T, KeepError> {
        serde_json::from_str(&self.read(name)?).map_err(|error| self.damaged(name, &error))
    }

    fn read(&self, name: &str) -> Result<String, KeepError> {
        let path = self.root.join(name);
        let mut text = String::new();
        let file = File::open(&path).and_then(|file| {
            io::Read::read_to_string(&mut io::Read::take(file, MAX_FILE), &mut text)
        });
        match file {
            Ok(_) => Ok(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(KeepError::NotEnrolled { path: self.root.clone() })
            }
            Err(source) => Err(KeepError::Io { path, source }),
        }
    }

    fn damaged(&self, name: &str, why: &dyn std::fmt::Display) -> KeepError {
        KeepError::Damaged { path: self.root.join(name), why: why.to_string() }
    }

    /// Only this user reads it: names of temporary files have mode 0600 from their making.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), KeepError> {
        let path = self.root.join(name);
        let written = || {
            let mut file = tempfile::NamedTempFile::new_in(&self.root)?;
            file.write_all(bytes)?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|error| error.error)?;
            File::open(&self.root)?.sync_all()
        };
        written().map_err(|source| KeepError::Io { path: path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use wick_fleet::wire::KeyRing;

    use super::*;

    #[test]
    fn the_key_is_made_once_and_is_the_users_own() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path().join("a")).unwrap();
        assert!(matches!(home.site(), Err(KeepError::NotEnrolled { .. })));
        let (key, pem) = home.own_key().unwrap();
        let (again, same) = home.own_key().unwrap();
        assert_eq!((key.public(), &pem), (again.public(), &same));
        let mode = fs::metadata(home.root().join(KEY)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn what_was_kept_is_read_again_and_what_is_damaged_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path()).unwrap();
        let ring = KeyRing::new(1, vec![PrivateKey::from_seed(&[1; 32]).public()]).unwrap();
        let kept = Kept { boots: 7, ..Kept::enrolled(ring) };
        home.keep(&kept).unwrap();
        assert_eq!(home.kept().unwrap(), kept);
        fs::write(folder.path().join(KEPT), "{\"boots\":").unwrap();
        let error = home.kept().unwrap_err().to_string();
        assert!(error.contains("kept.json is damaged"), "{error}");
    }

    #[test]
    fn two_agents_do_not_share_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path()).unwrap();
        let lock = home.lock().unwrap();
        assert!(matches!(home.lock(), Err(KeepError::Busy { .. })));
        drop(lock);
        home.lock().unwrap();
    }
}
