//! Clients that call Magika again and again, each with a connection for each call, and what became
//! of their calls.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::filetype::{PYTHON, classify};
use crate::say;

/// How long a client that waits for its next call sleeps before it looks whether all is over.
const LOOK: Duration = Duration::from_millis(100);

/// Somebody who calls all the time.
pub struct Caller {
    over: Arc<AtomicBool>,
    calls: Vec<thread::JoinHandle<Tally>>,
}

/// What became of calls.
#[derive(Debug, Default)]
pub struct Tally {
    pub answered: u32,
    /// Of each call that was not answered well, when it was and what came.
    pub lost: Vec<String>,
    /// The longest time of a call that was answered.
    pub slowest: Duration,
}

// === impl Caller ===

impl Caller {
    /// Clients that each wait for `gap` between two calls; its argument is the number of the call.
    pub fn start(addr: SocketAddr, clients: u32, gap: fn(u32) -> Duration) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let calls = (0..clients)
            .map(|number| {
                let over = Arc::clone(&over);
                thread::spawn(move || call(addr, &over, |count| gap(count * clients + number)))
            })
            .collect();
        Self { over, calls }
    }

    /// Ends them when their present calls have ended.
    pub fn stop(self) -> anyhow::Result<Tally> {
        self.over.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        for call in self.calls {
            let one = call.join().map_err(|_| anyhow::anyhow!("a client has panicked"))?;
            all.add(one);
        }
        Ok(all)
    }

    /// The same, says it, and fails if a call was lost.
    pub fn stop_without_loss(self, what: &str) -> anyhow::Result<u32> {
        let tally = self.stop()?;
        say(&format!("{what}: {} answered, {} lost", tally.answered, tally.lost.len()));
        ensure!(tally.lost.is_empty(), "{what}: {:?}", tally.lost);
        Ok(tally.answered)
    }
}

// === impl Tally ===

impl Tally {
    pub fn add(&mut self, other: Self) {
        self.answered += other.answered;
        self.lost.extend(other.lost);
        self.slowest = self.slowest.max(other.slowest);
    }
}

fn call(addr: SocketAddr, over: &AtomicBool, gap: impl Fn(u32) -> Duration) -> Tally {
    let begun = Instant::now();
    let mut tally = Tally::default();
    let mut count = 0;
    while !over.load(Ordering::Relaxed) {
        let asked = Instant::now();
        let at = asked.duration_since(begun);
        match classify(addr, PYTHON) {
            Ok(label) if label == "python" => {
                tally.answered += 1;
                tally.slowest = tally.slowest.max(asked.elapsed());
            }
            Ok(label) => tally.lost.push(format!("at {at:.1?}: {label}")),
            Err(error) => {
                tally.lost.push(format!("at {at:.1?}, after {:.1?}: {error:#}", asked.elapsed()));
            }
        }
        rest(gap(count), over);
        count += 1;
    }
    tally
}

/// Waits, but not when all is over.
fn rest(gap: Duration, over: &AtomicBool) {
    let until = Instant::now() + gap;
    while !over.load(Ordering::Relaxed) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        thread::sleep(left.min(LOOK));
    }
}
