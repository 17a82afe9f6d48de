//! The table from a file that is read again when it changes: for tests and benchmarks, which have
//! no API server.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;

use super::table::Table;

/// How often the file is looked at.
const EVERY: Duration = Duration::from_millis(50);

/// A table that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    #[error("cannot read the table {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("the table {path} is not what it must be: docs/activator.md has an example")]
    Parse { path: PathBuf, source: serde_json::Error },
}

/// # Errors
/// See [`TableError`].
pub fn read(path: &Path) -> Result<Table, TableError> {
    let bytes =
        std::fs::read(path).map_err(|source| TableError::Read { path: path.to_owned(), source })?;
    serde_json::from_slice(&bytes)
        .map_err(|source| TableError::Parse { path: path.to_owned(), source })
}

/// Read it again and again until this is dropped. A table that is wrong changes nothing.
pub async fn follow(path: PathBuf, table: watch::Sender<Table>) {
    let mut said = String::new();
    loop {
        match read(&path) {
            Ok(new) => {
                said.clear();
                table.send_if_modified(|old| {
                    *old != new && {
                        *old = new;
                        true
                    }
                });
            }
            Err(error) => {
                let text = error.to_string();
                if text != said {
                    tracing::warn!(error = %text, cause = ?std::error::Error::source(&error), "the table stays");
                    said = text;
                }
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}
