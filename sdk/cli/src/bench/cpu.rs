//! CPU time of this process, from Linux's `/proc`.

use std::time::Duration;

/// Clock ticks in a second that `/proc` counts in: fixed by Linux's interface to
/// programs, whatever the kernel's own clock does.
const TICKS: u64 = 100;

/// User and system time so far; none where there is no `/proc`.
pub fn time() -> Option<Duration> {
    parse(&std::fs::read_to_string("/proc/self/stat").ok()?)
}

fn parse(stat: &str) -> Option<Duration> {
    // The program's name is in brackets and may hold anything, brackets included.
    let (_, fields) = stat.rsplit_once(')')?;
    // utime and stime are the 14th and 15th of all, the 12th and 13th after the name.
    let mut fields = fields.split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * (1000 / TICKS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_system_time_are_added() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 30 12 0 0 20 0 1 0 99 1 1";
        assert_eq!(parse(stat), Some(Duration::from_millis(420)));
        assert_eq!(parse("7 (a"), None);
        assert!(time().is_some());
    }
}
