//! One setup at a time: two would download the same files and write the same folders.

use std::fs::{self, File, TryLockError};

use anyhow::Context as _;

use crate::house::House;

/// Held while it lives; the system releases it when the process ends, however it ends.
pub struct Lock(#[expect(dead_code, reason = "held for its lock")] File);

/// Wait for the lock of the cache folder.
pub fn hold(house: &House) -> anyhow::Result<Lock> {
    let path = house.cache.join("setup.lock");
    fs::create_dir_all(&house.cache)
        .with_context(|| format!("create {}", house.cache.display()))?;
    let file = File::create(&path).with_context(|| format!("open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            eprintln!("setup: waiting for another setup to end ({})", path.display());
            file.lock().with_context(|| format!("lock {}", path.display()))?;
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("lock {}", path.display()));
        }
    }
    Ok(Lock(file))
}
