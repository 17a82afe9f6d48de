//! Small things that several commands need: programs on PATH, scratch folders, files that
//! appear whole or not at all, digests.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, ensure};
use sha2::{Digest as _, Sha256};

/// A folder that is removed when dropped.
pub struct Scratch(PathBuf);

/// Counts the scratch folders of this process, so that two never share a name.
static SCRATCHES: AtomicU32 = AtomicU32::new(0);

// === impl Scratch ===

impl Scratch {
    pub fn new(what: &str) -> anyhow::Result<Self> {
        let count = SCRATCHES.fetch_add(1, Ordering::Relaxed);
        let name = format!("wick-{what}-{}-{count}", process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A folder that is left over does no harm.
        drop(fs::remove_dir_all(&self.0));
    }
}

/// The program's full path, if PATH has it.
pub fn find_on_path(program: impl AsRef<OsStr>) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let program = Path::new(program.as_ref());
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Run a command to its end; a failure names it.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.stdin(Stdio::null()).status();
    let status = status.with_context(|| format!("run {}", shown(command)))?;
    ensure!(status.success(), "`{}` failed: {status}", shown(command));
    Ok(())
}

/// Run a command and return its standard output; a failure shows its standard error.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("run {}", shown(command)))?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{}` failed:\n{}", shown(command), error.trim());
    String::from_utf8(output.stdout).with_context(|| format!("output of {}", shown(command)))
}

/// The command as one would type it.
pub fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|arg| arg.to_string_lossy().into_owned()));
    words.join(" ")
}

/// SHA-256 of a file in hex; none if there is no such file.
pub fn sha256(path: &Path) -> anyhow::Result<Option<String>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(sha256_of(&bytes))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

/// SHA-256 in hex.
pub fn sha256_of(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Write a file so that a reader sees the old bytes or the new ones, never a part.
pub fn write_whole(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let folder = path.parent().context("a file without a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let mut name = path.file_name().context("a file without a name")?.to_owned();
    name.push(format!(".{}.part", process::id()));
    let part = folder.join(name);
    let written = fs::write(&part, bytes).and_then(|()| fs::rename(&part, path));
    written.with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_file_replaces_the_old_one_and_leaves_no_part() -> anyhow::Result<()> {
        let scratch = Scratch::new("tools")?;
        let file = scratch.path().join("a/b");
        write_whole(&file, b"old")?;
        write_whole(&file, b"new")?;
        assert_eq!(fs::read(&file)?, b"new");
        assert_eq!(fs::read_dir(scratch.path().join("a"))?.count(), 1);
        let digest = "11507a0e2f5e69d5dfa40a62a1bd7b6ee57e6bcd85c67c9b8431b36fff21c437";
        assert_eq!(sha256(&file)?.as_deref(), Some(digest));
        assert_eq!(sha256(&scratch.path().join("none"))?, None);
        Ok(())
    }
}
