//! One JSON line for each file: on standard output as it comes, and in a file that is there
//! only when it is whole.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use magika::Answer;
use serde::Serialize;

use crate::JobError;

/// The results, below the folder for them.
const WHOLE: &str = "results.jsonl";

/// The same while they are written. A job that was cut off leaves it, and the next one
/// writes it anew.
const PART: &str = ".results.jsonl.part";

/// What became of one file.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Line<'a> {
    Label { file: &'a str, label: &'a str, score: f32 },
    Error { file: &'a str, error: &'a str },
}

/// Where lines go.
pub(crate) struct Results<W> {
    stdout: W,
    file: Option<Unfinished>,
}

struct Unfinished {
    writer: BufWriter<File>,
    part: PathBuf,
    whole: PathBuf,
}

// === impl Line ===

impl<'a> Line<'a> {
    pub(crate) fn new(file: &'a str, outcome: Result<Answer, &'a str>) -> Self {
        match outcome {
            Ok(Answer { label, score, .. }) => Self::Label { file, label, score },
            Err(error) => Self::Error { file, error },
        }
    }
}

// === impl Results ===

impl<W: Write> Results<W> {
    /// Without a folder `out`, there is only standard output.
    ///
    /// # Errors
    /// The folder is there and can't be written: known before the work rather than after.
    pub(crate) fn open(stdout: W, out: &Path) -> Result<Self, JobError> {
        // Not granted looks different from host to host; granted is always a folder.
        let file = if out.is_dir() { Some(Unfinished::create(out)?) } else { None };
        Ok(Self { stdout, file })
    }

    /// # Errors
    /// One of the two places takes no more.
    pub(crate) fn write(&mut self, line: &Line<'_>) -> Result<(), JobError> {
        let mut text =
            serde_json::to_vec(line).map_err(io::Error::from).map_err(JobError::Print)?;
        text.push(b'\n');
        self.stdout.write_all(&text).map_err(JobError::Print)?;
        match &mut self.file {
            Some(file) => file.writer.write_all(&text).map_err(|error| file.failed(error)),
            None => Ok(()),
        }
    }

    /// Give the file its name; the name, if there is a file.
    ///
    /// # Errors
    /// The last lines can't be written.
    pub(crate) fn finish(mut self) -> Result<Option<PathBuf>, JobError> {
        self.stdout.flush().map_err(JobError::Print)?;
        self.file.map(Unfinished::finish).transpose()
    }
}

// === impl Unfinished ===

impl Unfinished {
    fn create(out: &Path) -> Result<Self, JobError> {
        let (part, whole) = (out.join(PART), out.join(WHOLE));
        match File::create(&part) {
            Ok(file) => Ok(Self { writer: BufWriter::new(file), part, whole }),
            Err(source) => Err(JobError::Write { path: part, source }),
        }
    }

    fn finish(mut self) -> Result<PathBuf, JobError> {
        // The data before the name: after a crash of the node, a file of that name is whole.
        let done = self.writer.flush();
        let done = done.and_then(|()| self.writer.get_ref().sync_all());
        let done = done.and_then(|()| fs::rename(&self.part, &self.whole));
        done.map_err(|error| self.failed(error))?;
        Ok(self.whole)
    }

    fn failed(&self, source: io::Error) -> JobError {
        JobError::Write { path: self.whole.clone(), source }
    }
}
