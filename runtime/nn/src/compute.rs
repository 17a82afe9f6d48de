//! Threads that inferences run on, away from the threads that serve requests.
//!
//! As many inferences run at once as there are threads; the others wait in a
//! bounded queue. A thread is started when work waits and nobody is free, and
//! ends with the pool. Of those that are free, the one that ran last is the next: the
//! caches of its processor still hold the graph.

use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, Thread};

use parking_lot::Mutex;

use crate::doorbell::{Doorbell, Heard};

/// Most jobs that wait. Requests are admitted by the server long before this; the
/// bound is for callers that have no admission.
const MAX_WAITING: usize = 4096;

type Job = Box<dyn FnOnce(&Shift<'_>) + Send>;

/// Compute threads. Dropping the pool ends them when the queue is empty.
pub(crate) struct Compute {
    shared: Arc<Shared>,
    bell: Doorbell,
}

/// The queue is full.
#[derive(Debug, PartialEq)]
pub(crate) struct Full;

/// A job on its thread.
pub(crate) struct Shift<'c> {
    shared: &'c Shared,
    ends: Cell<bool>,
}

struct Shared {
    limit: usize,
    state: Mutex<State>,
}

// Invariant: idle + ending <= threads <= limit. Each job that waits has a thread that is not idle.
#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    /// Who sleeps until it is woken or the pool closes, the last to have run at the end.
    idle: Vec<Thread>,
    /// Threads that have nothing left to do but to answer, and then look for work.
    ending: usize,
    closed: bool,
}

// === impl Compute ===

impl Compute {
    /// A pool of up to `threads` threads, at least one. None is started yet.
    pub(crate) fn new(threads: usize) -> Self {
        let shared = Shared { limit: threads.max(1), state: Mutex::default() };
        Self { shared: Arc::new(shared), bell: Doorbell::default() }
    }

    /// Run `job` on a compute thread, after those that came before it.
    ///
    /// # Errors
    /// [`MAX_WAITING`] jobs wait already.
    pub(crate) fn submit(&self, job: impl FnOnce(&Shift<'_>) + Send + 'static) -> Result<(), Full> {
        let mut state = self.shared.state.lock();
        if state.jobs.len() >= MAX_WAITING {
            return Err(Full);
        }
        state.jobs.push_back(Box::new(job));
        if state.jobs.len() <= state.ending {
            return Ok(());
        }
        if let Some(thread) = state.idle.pop() {
            drop(state);
            thread.unpark();
        } else if state.threads < self.shared.limit {
            let shared = Arc::clone(&self.shared);
            let name = format!("wick-nn-{}", state.threads);
            let started = thread::Builder::new().name(name).spawn(move || shared.run());
            if started.is_ok() {
                state.threads += 1;
            } else if state.threads == 0 {
                // Nobody would ever run it.
                state.jobs.pop_back();
                return Err(Full);
            }
        }
        Ok(())
    }

    /// Wait for the answer of a job.
    pub(crate) fn hear<F: Future + Unpin>(&self, answer: F) -> Heard<F> {
        self.bell.hear(answer)
    }
}

impl Drop for Compute {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.closed = true;
        state.idle.drain(..).for_each(|thread| thread.unpark());
    }
}

// === impl Shift ===

impl Shift<'_> {
    /// All that is left to do is to answer. Who has the answer may have the next job ready before this thread has
    /// gone to sleep, and it is this one's, not another's that would have to be woken.
    pub(crate) fn ends(&self) {
        if !self.ends.replace(true) {
            self.shared.state.lock().ending += 1;
        }
    }
}

impl Drop for Shift<'_> {
    fn drop(&mut self) {
        if self.ends.get() {
            self.shared.state.lock().ending -= 1;
        }
    }
}

// === impl Shared ===

impl Shared {
    fn run(&self) {
        while let Some(job) = self.next() {
            // A job answers its caller by a channel, which a panic closes.
            let shift = Shift { shared: self, ends: Cell::new(false) };
            if catch_unwind(AssertUnwindSafe(|| job(&shift))).is_err() {
                tracing::error!("an inference panicked");
            }
        }
    }

    fn next(&self) -> Option<Job> {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.closed {
                state.threads -= 1;
                return None;
            }
            state.idle.push(thread::current());
            drop(state);
            thread::park();
            state = self.state.lock();
            // It may have woken of itself.
            state.idle.retain(|idle| idle.id() != thread::current().id());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn no_more_jobs_run_at_once_than_there_are_threads() {
        let pool = Compute::new(2);
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (done, wait) = mpsc::channel();
        for _ in 0..50 {
            let (running, most, done) = (Arc::clone(&running), Arc::clone(&most), done.clone());
            let job = move |_: &Shift<'_>| {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                thread::sleep(std::time::Duration::from_millis(1));
                running.fetch_sub(1, Ordering::SeqCst);
                done.send(()).unwrap();
            };
            pool.submit(job).unwrap();
        }
        wait.iter().take(50).for_each(drop);
        assert_eq!(most.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_panic_ends_neither_the_thread_nor_the_pool() {
        let pool = Compute::new(1);
        let (done, wait) = mpsc::channel();
        pool.submit(|_| panic!("a bad job")).unwrap();
        pool.submit(move |_| done.send(()).unwrap()).unwrap();
        wait.recv().unwrap();
    }

    #[test]
    fn a_full_queue_refuses() {
        let pool = Compute::new(1);
        let (hold, held) = mpsc::channel::<()>();
        let (started, wait) = mpsc::channel();
        let job = move |_: &Shift<'_>| {
            started.send(()).unwrap();
            _ = held.recv();
        };
        pool.submit(job).unwrap();
        wait.recv().unwrap();
        (0..MAX_WAITING).for_each(|_| pool.submit(|_| ()).unwrap());
        assert_eq!(pool.submit(|_| ()), Err(Full));
        drop(hold);
    }

    #[test]
    fn jobs_that_were_taken_run_even_when_the_pool_is_dropped() {
        let (done, wait) = mpsc::channel();
        let pool = Compute::new(1);
        (0..10).for_each(|_| {
            let done = done.clone();
            pool.submit(move |_| done.send(()).unwrap()).unwrap();
        });
        drop((pool, done));
        assert_eq!(wait.iter().count(), 10);
    }
}
