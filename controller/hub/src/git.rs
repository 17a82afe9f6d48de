//! A repository's newest files of a branch or a tag, fetched without its history. Blocks.

use std::fs;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use gix::remote::Direction;
use gix::remote::fetch::{Shallow, Tags};

use crate::policy::{File, ROLLOUTS, SITES};
use crate::source::{Fetched, Origin};

/// What is kept of the repository: its one commit.
const DEPTH: NonZeroU32 = NonZeroU32::MIN;

/// Where the commit is noted in our copy.
const HERE: &str = "refs/wick/policy";

/// Files of a policy, their size, and all of them.
const MAX_FILES: usize = 20_000;
const MAX_FILE: u64 = 1 << 20;
const MAX_ALL: u64 = 32 << 20;

/// Fetches into one copy. Each adds a pack, and nothing takes them away, so the copy is made anew.
const MAX_PACKS: usize = 64;

/// Where a policy is.
#[derive(Debug, Clone)]
pub struct GitSettings {
    /// `https://`, `ssh://`, `git@host:path` or `file://`.
    pub url: String,
    /// A branch, `tags/NAME`, or a whole name that begins with `refs/`.
    pub reference: String,
    /// A file with a token for HTTPS, read for each fetch.
    pub token: Option<PathBuf>,
    /// A private key for SSH.
    pub ssh_key: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum GitError {
    #[error("{} can't be used", .path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("the repository can't be fetched: {0}")]
    Fetch(String),
    #[error("the copy of the repository is damaged, and is made anew: {0}")]
    Copy(String),
    #[error("{path}: {what}")]
    File { path: String, what: String },
    #[error("a policy has more than {MAX_FILES} files, or more than {MAX_ALL} bytes")]
    Large,
}

/// An error with its causes on one line: they say which part of an address was wrong.
fn told(error: &gix::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

// === impl GitSettings ===

impl GitSettings {
    /// The newest files, unless they are of the commit that is known. A history that was rewritten is one like
    /// any other.
    ///
    /// # Errors
    /// It can't be reached, has no such branch, or holds what no policy does.
    pub fn fetch(
        &self,
        folder: &Path,
        known: Option<&str>,
        stop: &AtomicBool,
    ) -> Result<Option<Fetched>, GitError> {
        let repository = self.open(folder)?;
        let commit =
            self.receive(&repository, stop).map_err(|error| GitError::Fetch(told(&error)))?;
        let text = commit.to_string();
        if known == Some(text.as_str()) {
            return Ok(None);
        }
        let files = files(&repository, commit).inspect_err(|error| {
            if matches!(error, GitError::Copy(_)) {
                // What can't be removed is told the next time.
                let _ = fs::remove_dir_all(folder);
            }
        })?;
        Ok(Some(Fetched { origin: Origin::Git, commit: text, files }))
    }

    fn full_name(&self) -> String {
        match self.reference.as_str() {
            full if full.starts_with("refs/") => full.to_owned(),
            tag if tag.starts_with("tags/") => format!("refs/{tag}"),
            branch => format!("refs/heads/{branch}"),
        }
    }

    fn open(&self, folder: &Path) -> Result<gix::Repository, GitError> {
        let io = |source| GitError::Io { path: folder.to_owned(), source };
        let packs = fs::read_dir(folder.join("objects/pack")).map_or(0, Iterator::count);
        // A pack has an index beside it.
        let worn = packs / 2 > MAX_PACKS;
        let options = self.options()?;
        if !worn && let Ok(repository) = gix::open_opts(folder, options.clone()) {
            return Ok(repository);
        }
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
        let kind = gix::create::Kind::Bare;
        let made = gix::ThreadSafeRepository::init_opts(
            folder,
            kind,
            gix::create::Options::default(),
            options,
        );
        made.map(Into::into).map_err(|error| GitError::Copy(told(&error)))
    }

    /// Nothing of the machine's or a user's own settings: what is fetched is what this hub was told.
    fn options(&self) -> Result<gix::open::Options, GitError> {
        let mut config = vec!["gitoxide.http.connectTimeout=10000".to_owned()];
        if let Some(path) = &self.token {
            let token = fs::read_to_string(path);
            let token = token.map_err(|source| GitError::Io { path: path.clone(), source })?;
            // As all large hosts take it; the name doesn't matter to them.
            let login = BASE64_STANDARD.encode(format!("x-access-token:{}", token.trim()));
            config.push(format!("http.extraHeader=Authorization: Basic {login}"));
        }
        if let Some(key) = &self.ssh_key {
            let key = key.display();
            // Nobody is there to answer questions.
            config.push(format!(
                "core.sshCommand=ssh -o BatchMode=yes -o IdentitiesOnly=yes -i '{key}'"
            ));
        }
        Ok(gix::open::Options::isolated().config_overrides(config))
    }

    fn receive(
        &self,
        repository: &gix::Repository,
        stop: &AtomicBool,
    ) -> Result<gix::ObjectId, gix::Error> {
        // Forced: the new commit need not follow the old one.
        let refspec = format!("+{}:{HERE}", self.full_name());
        let remote = repository.remote_at(self.url.as_str())?;
        let remote =
            remote.with_refspecs([refspec.as_str()], Direction::Fetch)?.with_fetch_tags(Tags::None);
        let connection = remote.connect(Direction::Fetch)?.with_credentials(|_| Ok(None));
        let prepared = connection
            .prepare_fetch(gix::progress::Discard, gix::remote::ref_map::Options::default())?;
        let prepared = prepared.with_shallow(Shallow::DepthAtRemote(DEPTH));
        prepared.receive(gix::progress::Discard, stop)?;
        let mut reference = repository.find_reference(HERE)?;
        // A tag may be an object of its own.
        Ok(reference.peel_to_id()?.detach())
    }
}

fn files(repository: &gix::Repository, commit: gix::ObjectId) -> Result<Vec<File>, GitError> {
    let damaged = |error: gix::Error| GitError::Copy(told(&error));
    let tree = repository.find_commit(commit).and_then(|commit| commit.tree()).map_err(damaged)?;
    let (mut files, mut all) = (Vec::new(), 0);
    for folder in [SITES, ROLLOUTS] {
        let entry = tree.lookup_entry([folder.trim_end_matches('/')]).map_err(damaged)?;
        let Some(entry) = entry.filter(|entry| entry.mode().is_tree()) else { continue };
        let tree = entry.object().and_then(gix::Object::try_into_tree).map_err(damaged)?;
        for entry in tree.iter() {
            let entry = entry.map_err(damaged)?;
            let path = format!("{folder}{}", entry.filename());
            if !entry.mode().is_blob() || !(path.ends_with(".yaml") || path.ends_with(".yml")) {
                continue;
            }
            let size = repository.find_header(entry.oid()).map_err(damaged)?.size();
            all += size;
            if size > MAX_FILE {
                return Err(GitError::File {
                    path,
                    what: format!("is larger than {MAX_FILE} bytes"),
                });
            }
            if files.len() >= MAX_FILES || all > MAX_ALL {
                return Err(GitError::Large);
            }
            let text = entry.object().map_err(damaged)?.detach().data;
            let text = String::from_utf8(text);
            let text = text.map_err(|_| GitError::File {
                path: path.clone(),
                what: "is not UTF-8".to_owned(),
            })?;
            files.push(File { path, text });
        }
    }
    Ok(files)
}
