//! Who wants to know how far a transfer is.

use std::time::Duration;

/// Hears of a transfer while it goes on. All calls are short, and come from several threads.
pub trait Progress: Send + Sync {
    /// So much is to be there in the end; more may be found on the way.
    fn planned(&self, _bytes: u64) {}
    /// Bytes that came over the wire or went.
    fn moved(&self, _bytes: u64) {}
    /// Bytes that need not move: they are there already.
    fn kept(&self, _bytes: u64) {}
    /// Bytes that have moved, and must once more.
    fn undone(&self, _bytes: u64) {}
    /// Nothing moves for a while, and why.
    fn waiting(&self, _why: &str, _time: Duration) {}
}

/// Nobody wants to know.
impl Progress for () {}
