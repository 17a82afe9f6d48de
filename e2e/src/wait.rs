//! Waiting with a deadline: look, sleep, look again, and say what was waited for.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::bail;

/// Pause between two looks. Most cost a process of kubectl.
const POLL: Duration = Duration::from_millis(200);

/// Look until there is something, for at most `limit`. An error of `look` ends the wait.
pub fn wait<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() > deadline {
            bail!("{what}: not within {} s", limit.as_secs());
        }
        sleep(POLL);
    }
}
