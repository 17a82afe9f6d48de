//! How far an import is, told to whoever shows it.

/// A file that is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// Its name, for people.
    pub file: &'a str,
    /// Bytes that are there.
    pub done: u64,
    /// Bytes that will be; none where nobody knows.
    pub total: Option<u64>,
}

/// Who is told.
pub type Watch<'a> = dyn FnMut(Progress<'_>) + 'a;

/// Adds up what is there of one file after the other.
pub(crate) struct Meter<'a> {
    watch: &'a mut Watch<'a>,
    file: String,
    done: u64,
    total: Option<u64>,
}

// === impl Meter ===

impl<'a> Meter<'a> {
    pub(crate) fn new(watch: &'a mut Watch<'a>) -> Self {
        Self { watch, file: String::new(), done: 0, total: None }
    }

    pub(crate) fn begin(&mut self, file: &str, done: u64, total: Option<u64>) {
        file.clone_into(&mut self.file);
        (self.done, self.total) = (done, total);
        self.advance(0);
    }

    pub(crate) fn advance(&mut self, bytes: u64) {
        self.done += bytes;
        (self.watch)(Progress { file: &self.file, done: self.done, total: self.total });
    }
}
