//! The clock of guest code: a thread that moves the engine's epoch on while guests
//! run. It knows nothing of deadlines; each store asks for its own at every tick.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use wasmtime::{Engine, EngineWeak};

/// Time between two ticks: how late a guest that loops is stopped, and how long it
/// can keep a thread from other requests. A tick costs a guest a few microseconds.
const PERIOD: Duration = Duration::from_millis(5);

/// Ticks without a guest after which the thread sleeps until the next one, so that
/// an idle process costs nothing. One second: a busy one never pays for the waking.
const IDLE_TICKS: u32 = 200;

/// The ticking thread of one engine.
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
}

/// A guest that runs: while one exists, the clock ticks.
pub(crate) struct Running(Arc<Shared>);

struct Shared {
    running: AtomicUsize,
    asleep: AtomicBool,
    stop: AtomicBool,
}

// === impl Ticker ===

impl Ticker {
    /// # Errors
    /// The system has no thread left.
    pub(crate) fn start(engine: &Engine) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            running: AtomicUsize::new(0),
            asleep: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let engine = engine.weak();
        let clock = Arc::clone(&shared);
        let handle = thread::Builder::new()
            .name("wick-epoch".into())
            .stack_size(64 << 10)
            .spawn(move || tick(&clock, &engine))?;
        Ok(Self { shared, thread: handle.thread().clone() })
    }

    /// Keep the clock going until the answer is dropped.
    pub(crate) fn run(&self) -> Running {
        // The thread writes `asleep` before it reads `running`, and this does the
        // opposite, so that one of the two always sees the other.
        self.shared.running.fetch_add(1, Ordering::SeqCst);
        if self.shared.asleep.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
        Running(Arc::clone(&self.shared))
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

fn tick(shared: &Shared, engine: &EngineWeak) {
    let mut idle = 0;
    while !shared.stop.load(Ordering::SeqCst) {
        if idle >= IDLE_TICKS {
            shared.asleep.store(true, Ordering::SeqCst);
            while shared.running.load(Ordering::SeqCst) == 0 && !shared.stop.load(Ordering::SeqCst)
            {
                thread::park();
            }
            shared.asleep.store(false, Ordering::SeqCst);
        }
        thread::sleep(PERIOD);
        let Some(engine) = engine.upgrade() else { return };
        engine.increment_epoch();
        let busy = shared.running.load(Ordering::SeqCst) > 0;
        idle = if busy { 0 } else { idle + 1 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleeping_clock_wakes_for_a_guest() {
        let mut config = wasmtime::Config::new();
        config.epoch_interruption(true);
        let engine = Engine::new(&config).unwrap();
        let ticker = Ticker::start(&engine).unwrap();
        let asleep = || ticker.shared.asleep.load(Ordering::SeqCst);
        let waited = |until: &dyn Fn() -> bool| {
            (0..1000).any(|_| {
                thread::sleep(PERIOD);
                until()
            })
        };
        assert!(waited(&asleep), "the clock never went to sleep");
        let running = ticker.run();
        assert!(waited(&|| !asleep()), "the clock slept on");
        drop(running);
        assert!(waited(&asleep), "the clock never went to sleep again");
    }
}
