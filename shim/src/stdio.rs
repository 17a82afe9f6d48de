//! A container's standard streams. A worker writes straight into containerd's FIFOs: nothing
//! is copied by the shim, so nothing is lost or delayed when it is busy.
//!
//! No opening blocks, and the shim holds each FIFO open in both directions until the process
//! has ended: when containerd restarts, a worker's write waits for the new reader instead of
//! failing with a broken pipe.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

/// The streams of one process.
#[derive(Debug)]
pub struct Stdio {
    /// What becomes descriptors 0, 1 and 2 of the process.
    pub ends: [OwnedFd; 3],
    pub kept: Kept,
}

/// What the shim holds open while the process runs.
#[derive(Debug, Default)]
pub struct Kept {
    /// Closed when containerd says that nothing more comes.
    pub stdin: Option<File>,
    pub output: Vec<File>,
}

/// Where the streams go, as the request names them.
#[derive(Debug, Clone, Default)]
pub struct Names {
    pub stdin: String,
    pub stdout: String,
    pub stderr: String,
    pub terminal: bool,
}

// === impl Stdio ===

impl Stdio {
    /// # Errors
    /// A FIFO or a file can't be opened.
    pub fn open(names: &Names) -> io::Result<Self> {
        let mut kept = Kept::default();
        let stdin = open_input(&names.stdin, &mut kept)?;
        let stdout = open_output(&names.stdout, &mut kept)?;
        let stderr = open_output(&names.stderr, &mut kept)?;
        Ok(Self { ends: [stdin.into(), stdout.into(), stderr.into()], kept })
    }

    /// # Errors
    /// `/dev/null` is missing.
    pub fn null() -> io::Result<Self> {
        Self::open(&Names::default())
    }
}

fn open_input(name: &str, kept: &mut Kept) -> io::Result<File> {
    if name.is_empty() {
        return File::open("/dev/null");
    }
    let path = path_of(name)?;
    if !is_fifo(path) {
        return File::open(path);
    }
    // Without it the process would read the end of a FIFO that nobody has opened yet.
    kept.stdin = Some(both_ways(path)?);
    let file = OpenOptions::new().read(true).custom_flags(nonblocking()).open(path)?;
    fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    Ok(file)
}

fn open_output(name: &str, kept: &mut Kept) -> io::Result<File> {
    if name.is_empty() {
        return OpenOptions::new().write(true).open("/dev/null");
    }
    let path = path_of(name)?;
    if !is_fifo(path) {
        return OpenOptions::new().append(true).create(true).open(path);
    }
    kept.output.push(both_ways(path)?);
    // There is a reader now, so this does not wait for one.
    OpenOptions::new().write(true).open(path)
}

/// Opening a FIFO for both never waits on Linux.
fn both_ways(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(nonblocking()).open(path)
}

fn nonblocking() -> i32 {
    OFlags::NONBLOCK.bits().cast_signed()
}

fn is_fifo(path: &Path) -> bool {
    path.metadata().is_ok_and(|m| m.file_type().is_fifo())
}

fn path_of(name: &str) -> io::Result<&Path> {
    let path = name.strip_prefix("file://").or_else(|| name.strip_prefix("fifo://"));
    let path = path.unwrap_or(name);
    if path.contains("://") {
        let what = format!("`{name}`: only a FIFO and `file://` are supported");
        return Err(io::Error::new(io::ErrorKind::Unsupported, what));
    }
    Ok(Path::new(path))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    fn fifo(folder: &Path, name: &str) -> String {
        let path = folder.join(name);
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        path.display().to_string()
    }

    #[test]
    fn what_is_written_before_anybody_reads_arrives() {
        let folder = tempfile::tempdir().unwrap();
        let stdout = fifo(folder.path(), "out");
        let names = Names { stdout: stdout.clone(), ..Names::default() };
        let Stdio { ends: [_, out, _], kept } = Stdio::open(&names).unwrap();
        File::from(out).write_all(b"partial").unwrap();
        let mut reader = OpenOptions::new().read(true).open(stdout).unwrap();
        drop(kept);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "partial");
    }

    #[test]
    fn a_reader_that_leaves_breaks_no_pipe() {
        let folder = tempfile::tempdir().unwrap();
        let stdout = fifo(folder.path(), "out");
        let stdio = Stdio::open(&Names { stdout: stdout.clone(), ..Names::default() }).unwrap();
        drop(OpenOptions::new().read(true).open(stdout).unwrap());
        let [_, out, _] = stdio.ends;
        File::from(out).write_all(b"still").unwrap();
    }

    #[test]
    fn a_file_is_appended_to_and_a_program_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("log");
        let stderr = format!("file://{}", file.display());
        let stdio = Stdio::open(&Names { stderr, ..Names::default() }).unwrap();
        let [_, _, err] = stdio.ends;
        File::from(err).write_all(b"line").unwrap();
        assert_eq!(std::fs::read(file).unwrap(), b"line");
        let binary = Names { stdout: "binary:///bin/log".to_owned(), ..Names::default() };
        assert!(Stdio::open(&binary).is_err());
    }
}
