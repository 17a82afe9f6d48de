//! What a hub must not forget, in one file. A change is all there or not at all, whenever the process or the
//! machine ends.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use parking_lot::{RwLock, RwLockWriteGuard};
use redb::{
    Database, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _,
    TableDefinition,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Entries of a log that are kept: a year of a busy fleet, and 20 MB at most.
const MAX_LOG: u64 = 50_000;

/// Memory for pages of the file. All that is decided over is in memory anyway.
const CACHE: usize = 16 << 20;

/// A kind of entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// Single values by name.
    Meta,
    /// What a site is to have, by its name.
    Targets,
    /// Where a rollout is, by its name.
    Rollouts,
    /// Each generation that a site was told, by name and number.
    Generations,
    /// What the hub decided.
    History,
    /// What people asked for.
    Audit,
    /// Sites that have enrolled, by name.
    Members,
    /// Tokens, by their hash.
    Tokens,
    /// Certificates that hold no more, by serial number.
    Revoked,
}

/// Entries that are written together.
#[derive(Debug, Default)]
pub struct Change {
    rows: Vec<(Table, String, Option<Vec<u8>>)>,
    logs: Vec<(Table, Vec<u8>)>,
}

pub struct Store {
    path: PathBuf,
    /// Closed after a failure, and opened again by who wants something next.
    file: RwLock<Option<Database>>,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{} can't be opened as the hub's store: does another hub run on it?", .path.display())]
    Open { path: PathBuf, source: Box<redb::Error> },
    #[error("the hub's store can't be read or written: look at the disk")]
    Failed(#[source] Box<redb::Error>),
    #[error("the hub's store was closed by another failure: try again")]
    Closed,
    #[error("`{key}` in the hub's store is of another version: {source}")]
    Foreign { key: String, source: serde_json::Error },
}

type Definition = TableDefinition<'static, &'static str, &'static [u8]>;

/// A number as a key: keys are sorted as texts.
pub fn numbered(prefix: &str, number: u64) -> String {
    format!("{prefix}{number:016x}")
}

// === impl Table ===

impl Table {
    const ALL: [Self; 9] = [
        Self::Meta,
        Self::Targets,
        Self::Rollouts,
        Self::Generations,
        Self::History,
        Self::Audit,
        Self::Members,
        Self::Tokens,
        Self::Revoked,
    ];

    fn definition(self) -> Definition {
        TableDefinition::new(match self {
            Self::Meta => "meta",
            Self::Targets => "targets",
            Self::Rollouts => "rollouts",
            Self::Generations => "generations",
            Self::History => "history",
            Self::Audit => "audit",
            Self::Members => "members",
            Self::Tokens => "tokens",
            Self::Revoked => "revoked",
        })
    }
}

// === impl Change ===

impl Change {
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.logs.is_empty()
    }

    pub fn put(&mut self, table: Table, key: impl Into<String>, value: &impl Serialize) {
        self.rows.push((table, key.into(), Some(bytes(value))));
    }

    pub fn delete(&mut self, table: Table, key: impl Into<String>) {
        self.rows.push((table, key.into(), None));
    }

    /// Add to a log, which has numbers of its own.
    pub fn log(&mut self, table: Table, value: &impl Serialize) {
        self.logs.push((table, bytes(value)));
    }
}

fn bytes(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("what is kept is plain data")
}

// === impl Store ===

impl Store {
    /// # Errors
    /// The file is another's, damaged, or in use.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let file = open(path)?;
        // Hashes of tokens are in it.
        let private = fs::set_permissions(path, fs::Permissions::from_mode(0o600));
        private.map_err(|error| opening(path, redb::Error::Io(error)))?;
        let store = Self { path: path.to_owned(), file: RwLock::new(Some(file)) };
        store.run(|file| {
            let transaction = file.begin_write()?;
            for table in Table::ALL {
                transaction.open_table(table.definition())?;
            }
            Ok(transaction.commit()?)
        })?;
        Ok(store)
    }

    /// Write a change; when this returns it is on the disk.
    ///
    /// # Errors
    /// Nothing of it was written.
    pub fn commit(&self, change: &Change) -> Result<(), StoreError> {
        if change.is_empty() {
            return Ok(());
        }
        self.run(|file| {
            let transaction = file.begin_write()?;
            for (table, key, value) in &change.rows {
                let mut table = transaction.open_table(table.definition())?;
                match value {
                    Some(value) => table.insert(key.as_str(), value.as_slice())?,
                    None => table.remove(key.as_str())?,
                };
            }
            for (table, value) in &change.logs {
                let mut table = transaction.open_table(table.definition())?;
                let last = table.last()?.map(|(key, _)| key.value().to_owned());
                let last = last.and_then(|key| u64::from_str_radix(&key, 16).ok());
                let next = numbered("", last.map_or(0, |last| last + 1));
                table.insert(next.as_str(), value.as_slice())?;
                while table.len()? > MAX_LOG {
                    table.pop_first()?;
                }
            }
            Ok(transaction.commit()?)
        })
    }

    /// # Errors
    /// The file can't be read.
    pub fn get<T: DeserializeOwned>(
        &self,
        table: Table,
        key: &str,
    ) -> Result<Option<T>, StoreError> {
        let found = self.run(|file| {
            let table = file.begin_read()?.open_table(table.definition())?;
            Ok(table.get(key)?.map(|value| value.value().to_vec()))
        })?;
        found.map(|bytes| parse(key, &bytes)).transpose()
    }

    /// How many entries there are.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn count(&self, table: Table) -> Result<u64, StoreError> {
        self.run(|file| Ok(file.begin_read()?.open_table(table.definition())?.len()?))
    }

    /// All entries whose keys begin so, in order.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn all<T: DeserializeOwned>(
        &self,
        table: Table,
        prefix: &str,
    ) -> Result<Vec<(String, T)>, StoreError> {
        let rows = self.run(|file| {
            let table = file.begin_read()?.open_table(table.definition())?;
            let mut rows = Vec::new();
            for row in table.range(prefix..)? {
                let (key, value) = row?;
                if !key.value().starts_with(prefix) {
                    break;
                }
                rows.push((key.value().to_owned(), value.value().to_vec()));
            }
            Ok(rows)
        })?;
        rows.into_iter().map(|(key, bytes)| parse(&key, &bytes).map(|value| (key, value))).collect()
    }

    /// The last entries of a log, the newest first.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn last<T: DeserializeOwned>(
        &self,
        table: Table,
        most: usize,
        keep: impl Fn(&T) -> bool,
    ) -> Result<Vec<T>, StoreError> {
        let mut found = Vec::new();
        let mut foreign = None;
        self.run(|file| {
            let table = file.begin_read()?.open_table(table.definition())?;
            for row in table.iter()?.rev() {
                let (key, value) = row?;
                match parse(key.value(), value.value()) {
                    Ok(value) if keep(&value) => found.push(value),
                    Ok(_) => {}
                    Err(error) => foreign = Some(error),
                }
                if found.len() >= most || foreign.is_some() {
                    break;
                }
            }
            Ok(())
        })?;
        foreign.map_or(Ok(found), Err)
    }

    /// Do it with the file. One that has failed once, as when the disk was full, fails for good until it is
    /// opened again.
    fn run<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let mut file = self.file.read();
        if file.is_none() {
            drop(file);
            let mut closed = self.file.write();
            if closed.is_none() {
                *closed = Some(open(&self.path)?);
            }
            file = RwLockWriteGuard::downgrade(closed);
        }
        let Some(open) = file.as_ref() else { return Err(StoreError::Closed) };
        let error = match work(open) {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        drop(file);
        if matches!(error, redb::Error::Io(_) | redb::Error::PreviousIo) {
            self.file.write().take();
        }
        Err(StoreError::Failed(Box::new(error)))
    }
}

fn open(path: &Path) -> Result<Database, StoreError> {
    let file = Database::builder().set_cache_size(CACHE).create(path);
    file.map_err(|error| opening(path, error.into()))
}

fn opening(path: &Path, error: redb::Error) -> StoreError {
    StoreError::Open { path: path.to_owned(), source: Box::new(error) }
}

fn parse<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes)
        .map_err(|source| StoreError::Foreign { key: key.to_owned(), source })
}
