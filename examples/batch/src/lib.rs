//! The job: a label for each file below a folder, one line each, whatever goes wrong with
//! some of them. Knows neither `wasi:nn` nor where the folders are mounted; `main.rs` does.
//!
//! ```text
//!   list /data ─▶ for each: read its ends ─▶ ask the model ─▶ stdout, results.jsonl.part
//!                                                                          └▶ results.jsonl
//! ```

mod files;
mod folder;
mod progress;
mod results;

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use magika::{Answer, BLOCK, Ends, Mismatch};

use files::{Found, Listing};
use progress::Progress;
use results::{Line, Results};

/// Bytes of one file. Only its ends are read, so this is no question of memory: what is
/// larger is a disk image or a damaged sparse file, whose ends don't say what it is.
pub const MAX_SIZE: u64 = 64 << 30;

/// What is to be done.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// The files, in folders to any depth that people make.
    pub data: &'a Path,
    /// Where `results.jsonl` goes, if there is such a folder.
    pub out: &'a Path,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub files: usize,
    /// Those of them that have an error instead of a label.
    pub errors: usize,
}

/// Why a job ended without a line for every file.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    #[error(
        "there is no folder {}: grant it with --grant-mount data=DIR, or mount a volume at \
         /mnt/data", .path.display()
    )]
    NoData { path: PathBuf },
    #[error(
        "{} has more than {files} files, or more than {names} bytes of names: split it into \
         several jobs", .path.display()
    )]
    TooMany { path: PathBuf, files: usize, names: usize },
    #[error("cannot write {}", .path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot print a result")]
    Print(#[source] io::Error),
    #[error(transparent)]
    Model(#[from] Mismatch),
}

/// Why one file has no label.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error(transparent)]
    Read(#[from] io::Error),
    #[error("it has {size} bytes, and {MAX_SIZE} is the limit")]
    TooLarge { size: u64 },
    #[error("{0}")]
    Model(String),
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
}

// === impl Job ===

impl Job<'_> {
    /// Label all files. `ask` is the model: values of [`magika::Features`] in, scores out.
    /// A file that fails has a line that says so; the others go on.
    ///
    /// # Errors
    /// See [`JobError`]. There is no `results.jsonl` of this job then.
    pub fn run<A>(
        &self,
        mut ask: A,
        stdout: impl Write,
        mut stderr: impl Write,
    ) -> Result<Tally, JobError>
    where
        A: FnMut(&[i32]) -> Result<Vec<f32>, String>,
    {
        let listing = Listing::of(self.data)?;
        let mut results = Results::open(stdout, self.out)?;
        let mut tally = Tally { files: listing.found.len(), errors: 0 };
        let mut progress = Progress::new(tally.files, Instant::now());
        for found in &listing.found {
            let outcome = self.label(found, &mut ask)?;
            tally.errors += usize::from(outcome.is_err());
            let outcome = outcome.as_ref().copied().map_err(String::as_str);
            results.write(&Line::new(&found.name, outcome))?;
            if let Some(text) = progress.step(Instant::now()) {
                say(&mut stderr, &text);
            }
        }
        let written = results.finish()?;
        say(&mut stderr, &self.summary(tally, listing.left_out, written.as_deref()));
        Ok(tally)
    }

    /// The label of a file, or what is wrong with it.
    fn label<A>(&self, found: &Found, ask: A) -> Result<Result<Answer, String>, Mismatch>
    where
        A: FnMut(&[i32]) -> Result<Vec<f32>, String>,
    {
        if let Some(refused) = &found.refused {
            return Ok(Err(refused.clone()));
        }
        match identify(&self.data.join(&found.name), ask) {
            Ok(answer) => Ok(Ok(answer)),
            // It would be the same for every other file.
            Err(FileError::Mismatch(mismatch)) => Err(mismatch),
            Err(error) => Ok(Err(error.to_string())),
        }
    }

    fn summary(&self, tally: Tally, left_out: usize, written: Option<&Path>) -> String {
        let Tally { files, errors } = tally;
        let mut text = match files {
            0 => format!("no files below {}, nothing to do", self.data.display()),
            _ => format!("done: {files} files, {errors} of them with errors"),
        };
        if left_out > 0 {
            text.push_str(&format!("; {left_out} links or special files left out"));
        }
        match written {
            Some(path) => text.push_str(&format!("; results in {}", path.display())),
            None => text.push_str(&format!("; no folder {} for a file", self.out.display())),
        }
        text
    }
}

fn identify<A>(path: &Path, mut ask: A) -> Result<Answer, FileError>
where
    A: FnMut(&[i32]) -> Result<Vec<f32>, String>,
{
    match ends(path)? {
        Ends::Plain(answer) => Ok(answer),
        Ends::Ask(features) => {
            let scores = ask(features.values()).map_err(FileError::Model)?;
            Ok(magika::judge(&scores)?)
        }
    }
}

/// The first and the last block of a file, which may grow or shrink meanwhile.
fn ends(path: &Path) -> Result<Ends, FileError> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    if size > MAX_SIZE {
        return Err(FileError::TooLarge { size });
    }
    let mut first = Vec::new();
    (&file).take(BLOCK).read_to_end(&mut first)?;
    if size <= BLOCK {
        return Ok(Ends::of(&first, &first));
    }
    let mut last = Vec::new();
    file.seek(SeekFrom::Start(size - BLOCK))?;
    file.take(BLOCK).read_to_end(&mut last)?;
    Ok(Ends::of(&first, &last))
}

/// A reader that is gone must not end the work.
fn say(stderr: &mut impl Write, text: &str) {
    let _ = writeln!(stderr, "{text}");
}

#[cfg(test)]
mod tests;
